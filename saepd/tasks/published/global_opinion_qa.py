"""GlobalOpinionQA (Durmus et al. 2023, arXiv 2306.16388): what people of a country answer.

A perspective is a country as the source names it; where a survey did not cover a whole country, or
covered it differently over the years, that is part of the name and a perspective of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from saepd.tasks.published.opinions import opinion_task
from saepd.tasks.task import SURVEY_WORDING, Task, Wording

_SAMPLE = re.compile(r"\s*\([^()]*\bsample\)$")
_ABBREVIATED = {
    "Britain": "Great Britain",
    "Czech Rep.": "the Czech Republic",
    "Hong Kong SAR": "Hong Kong",
    "Macau SAR": "Macau",
    "Palest. ter.": "the Palestinian territories",
    "S. Africa": "South Africa",
    "S. Korea": "South Korea",
    "Taiwan ROC": "Taiwan",
    "United States": "the United States",
}


def load_global_opinion_qa(path: Path) -> Task:
    """The questions of a file in either of the forms that `saepd.tasks.published.opinions` reads.

    Raises:
        InputError: the file cannot be read, is in neither form, or has malformed rows.
    """
    return opinion_task("globalopinionqa", path, _wording)


def _wording(countries: Iterable[str]) -> Wording:
    bare = {country: _SAMPLE.sub("", country) for country in countries}
    return replace(
        SURVEY_WORDING,
        persona="A survey in {perspective} asked: {prompt}\nMost people answered:",
        names={country: _ABBREVIATED.get(name, name) for country, name in bare.items()},
    )
