"""OpinionQA (Santurkar et al. 2023, arXiv 2303.17548): what US demographic groups answer.

A perspective is one value of one attribute, as in ``RACE_White`` or ``POLPARTY_Democrat``; groups
of different attributes overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from saepd.tasks.published.opinions import opinion_task
from saepd.tasks.task import SURVEY_WORDING, Task, Wording

_ATTRIBUTES = {
    "AGE": "age",
    "CITIZEN": "citizen of the US",
    "CREGION": "region",
    "EDUCATION": "education",
    "INCOME": "family income",
    "MARITAL": "marital status",
    "POLIDEOLOGY": "political ideology",
    "POLPARTY": "political party",
    "RACE": "race",
    "RELIG": "religion",
    "RELIGATTEND": "religious attendance",
    "SEX": "sex",
}


def load_opinion_qa(path: Path) -> Task:
    """The questions of a file in either of the forms that `saepd.tasks.published.opinions` reads.

    Raises:
        InputError: the file cannot be read, is in neither form, or has malformed rows.
    """
    return opinion_task("opinionqa", path, _wording)


def _wording(groups: Iterable[str]) -> Wording:
    names: dict[str, str] = {}
    for group in groups:
        attribute, _, value = group.partition("_")
        names[group] = f"{_ATTRIBUTES[attribute]}: {value}" if attribute in _ATTRIBUTES else group
    return replace(
        SURVEY_WORDING,
        persona="A survey asked Americans ({perspective}): {prompt}\nMost of them answered:",
        names=names,
    )
