"""The embedded feedback: what 2018's General Social Survey heard from three political camps.

25 questions with fixed options, on national spending and on abortion, and the answers of each
respondent. ``data/README.md`` in the package says where they come from and how they were recoded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item

SURVEY_PERSPECTIVES = ("Democrat", "Independent", "Republican")


def survey_items() -> list[Item]:
    """The 25 questions, each with the distribution and the count of every perspective."""
    text = _data("gss_items.jsonl").read_text(encoding="utf-8")
    return [Item.model_validate_json(line) for line in text.splitlines()]


def survey_feedback() -> Iterator[Feedback]:
    """Every answer of every respondent as a row, respondent by respondent.

    A row's id is the item's and the respondent's, as in ``natspac-17``.
    """
    items = survey_items()
    lines = _data("gss_answers.csv").read_text(encoding="utf-8").splitlines()
    for cells in csv.DictReader(lines):
        for item in items:
            if cells[item.id]:
                yield Feedback(
                    id=f"{item.id}-{cells['respondent']}",
                    item=item.id,
                    perspective=cells["perspective"],
                    prompt=item.prompt,
                    options=item.options,
                    answer=item.options[int(cells[item.id])],
                )


def folds(items: Sequence[Item], n_folds: int, seed: int) -> list[list[str]]:
    """Split items for cross-validation by whole questions, every topic spread over all folds.

    Args:
        items: Questions with ids that differ.
        n_folds: 2 or more, and no more than the smallest topic has questions.
        seed: Any integer from 0.

    Returns:
        The item ids of each fold. Folds differ in size by one at most, in each topic as in all.

    Raises:
        InputError: n_folds is out of range.
    """
    topics: dict[str, list[str]] = {}
    for item in items:
        topics.setdefault(item.topic, []).append(item.id)
    most = min(map(len, topics.values()), default=0)
    if not 2 <= n_folds <= most:
        raise InputError(
            f"cannot split into {n_folds} folds: use 2 or more, and at most {most}, the number of "
            "questions of the smallest topic"
        )
    rng = np.random.default_rng(seed)
    dealt = [ids[i] for ids in topics.values() for i in rng.permutation(len(ids))]
    return [dealt[start::n_folds] for start in range(n_folds)]


def _data(name: str) -> Traversable:
    return resources.files("saepd.feedback") / "data" / name
