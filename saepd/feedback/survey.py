"""The packaged feedback: answers to the General Social Survey of 2018, by party identification.

25 questions with fixed options, on national spending and on abortion, and the answers of each
respondent. ``data/README.md`` in the package says where they come from and how they were recoded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

from saepd.feedback.schema import Feedback, Item

SURVEY_PERSPECTIVES = ("Democrat", "Independent", "Republican")


def survey_items() -> list[Item]:
    """The packaged survey's 25 questions, each with what every perspective answered.

    They are of the General Social Survey of 2018: 18 on national spending, 7 on abortion. Its
    perspectives are party identifications, of which each item knows the share of every option and
    the number of respondents.
    """
    text = _data("gss_items.jsonl").read_text(encoding="utf-8")
    return [Item.model_validate_json(line) for line in text.splitlines()]


def survey_feedback() -> Iterator[Feedback]:
    """The packaged survey's answers: a row for each answer of each respondent, one after another.

    A row's perspective is the respondent's party identification (Democrat, Independent or
    Republican), and its id the item's and the respondent's, as in ``natspac-17``.
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


def _data(name: str) -> Traversable:
    return resources.files("saepd.feedback") / "data" / name
