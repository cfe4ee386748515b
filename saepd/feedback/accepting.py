"""Everything that may be given as feedback or as items in Python, turned into rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.reading import feedback_in, flat_row, load_feedback
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.tables import RawRow, check_columns

if TYPE_CHECKING:
    import pandas as pd

FeedbackLike: TypeAlias = "Iterable[Feedback | Mapping[str, Any]] | str | Path | pd.DataFrame"


def as_feedback(given: FeedbackLike) -> Sequence[Feedback]:
    """Rows of feedback out of whatever holds them.

    Args:
        given: Rows (as `load_feedback` returns them, or of one's own making, or as dicts with their
            fields), the path of a file, or a pandas frame with one row each and the columns of a
            file's header.

    Raises:
        InputError: it is none of these, holds no row, two rows share an id, or a row is wrong.
    """
    if isinstance(given, str | Path):
        return load_feedback(given)
    if type(given).__module__.split(".")[0] == "pandas" and hasattr(given, "columns"):
        return list(feedback_in(_frame_rows(given), "the frame", None))
    if isinstance(given, Feedback | Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"{shortened(given)} is no feedback: give rows (a list of saepd.Feedback), the path of "
            "a file, or a pandas frame"
        )
    rows = list(given)
    feedback = [row for row in rows if isinstance(row, Feedback)]
    if len(feedback) == len(rows):
        _check_ids(feedback)
        return feedback
    return list(feedback_in(_plain_rows(rows), "the feedback", None))


def as_items(given: Item | Sequence[Item]) -> Sequence[Item]:
    """A list of the items that were given, one or several.

    Raises:
        InputError: what is given is not made of items.
    """
    if isinstance(given, Item):
        return [given]
    if isinstance(given, Sequence) and all(isinstance(item, Item) for item in given):
        return given
    raise InputError(
        f"{shortened(given)} is no list of questions: give saepd.Item, or what load_items returns"
    )


def _check_ids(rows: Sequence[Feedback]) -> None:
    if not rows:
        raise InputError("there is no feedback: give at least one row of each perspective")
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(
                f"two rows of feedback have the id {shortened(row.id)}: give each row its own"
            )
        seen.add(row.id)


def _plain_rows(rows: Sequence[Any]) -> Iterable[RawRow]:
    for number, row in enumerate(rows, 1):
        where = f"row {number}"
        if isinstance(row, Feedback):
            yield where, {name: getattr(row, name) for name in row.model_fields_set}
        elif isinstance(row, Mapping) and all(isinstance(name, str) for name in row):
            yield where, dict(row)
        else:
            yield where, f"{shortened(row)} is no row of feedback: give a saepd.Feedback"


def _frame_rows(frame: Any) -> Iterable[RawRow]:
    fields = Feedback.model_fields
    names = [str(name) for name in frame.columns]
    required = [name for name, field in fields.items() if field.is_required()]
    check_columns(names, "the frame", required, fields)
    columns = [frame.iloc[:, i].tolist() for i in range(len(names))]
    for number, cells in enumerate(zip(*columns, strict=True), 1):
        values = {name: _plain(cell) for name, cell in zip(names, cells, strict=True)}
        yield f"row {number}", flat_row({k: v for k, v in values.items() if v is not None})


def _plain(cell: Any) -> Any:
    """A cell as a file would hold it: arrays as lists, and the forms of "no value" as None."""
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return None if type(cell).__name__ in ("NAType", "NaTType") else cell
