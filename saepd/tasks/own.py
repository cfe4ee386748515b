"""The user's own questions and feedback, in the files that `saepd.feedback.reading` describes.

A folder with ``items.jsonl`` (or ``items.csv``) and, where people's own answers are known,
``feedback.jsonl`` (or ``feedback.csv``); or an items file alone. Feedback is linked to its item by
the item's id, or else by being about the same prompt and options.
"""

from __future__ import annotations

from pathlib import Path

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.reading import load_feedback, load_items
from saepd.feedback.schema import Feedback, Item
from saepd.tasks.ordinal import ordinal_items
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task


def load_own_data(path: Path) -> Task:
    """The items, with their feedback if there is any.

    Raises:
        InputError: a file is missing, cannot be read or has bad rows, or feedback is about a
            question that is not among the items.
    """
    items_file = _file(path, "items") if path.is_dir() else path
    if items_file is None:
        raise InputError(f"{path} holds no items.jsonl or items.csv: name your items file so")
    items = tuple(load_items(items_file).rows)
    feedback_file = _file(path, "feedback") if path.is_dir() else None
    rows = load_feedback(feedback_file).rows if feedback_file else []
    return Task(
        name="own",
        items=items,
        wording=SURVEY_WORDING,
        metrics=OPINION_METRICS,
        feedback=_linked(items, rows, feedback_file or path),
        ordinal=ordinal_items(items),
    )


def _file(folder: Path, stem: str) -> Path | None:
    """The folder's file of that name, JSONL before CSV."""
    names = (folder / f"{stem}{suffix}" for suffix in (".jsonl", ".csv"))
    return next((file for file in names if file.exists()), None)


def _linked(items: tuple[Item, ...], rows: list[Feedback], file: Path) -> tuple[Feedback, ...]:
    asked = {item.id: (item.prompt, item.options) for item in items}
    ids = {question: id_ for id_, question in asked.items()}
    linked: list[Feedback] = []
    for row in rows:
        question = (row.prompt, row.options)
        if asked.get(row.item) == question:
            linked.append(row)
        elif row.item not in asked and question in ids:
            linked.append(row.model_copy(update={"item": ids[question]}))
        else:
            raise InputError(
                f"{file}: feedback {shortened(row.id)} is about no item with its prompt and "
                "options: add that item, or correct the row"
            )
    return tuple(linked)
