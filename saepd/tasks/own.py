"""The user's own questions and feedback, in the files that `saepd.feedback.reading` describes.

An items file, and where people's own answers are known a feedback file. Feedback is linked to its
item by the item's id, or else by being about the same prompt and options.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.reading import load_feedback, load_items
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.tables import SUFFIXES
from saepd.tasks.ordinal import ordinal_items
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task

# Rows that a message names; of the rest it says how many there are.
_MOST_NAMED = 5


def load_own_data(path: Path) -> Task:
    """The task in a folder with ``items`` and perhaps ``feedback``, JSONL or CSV; or an items file.

    Raises:
        InputError: a file is missing, or whatever `own_task` refuses.
    """
    if not path.is_dir():
        return own_task(path)
    items = _file(path, "items")
    if items is None:
        raise InputError(f"{path} holds no items.jsonl or items.csv: name your items file so")
    return own_task(items, _file(path, "feedback"))


def own_task(
    items_file: Path, feedback_file: Path | None = None, *, skip_bad: bool = False
) -> Task:
    """The items, with their feedback if there is any.

    Args:
        items_file: Questions with what each perspective is known to answer, JSONL or CSV.
        feedback_file: Answers to these questions, JSONL or CSV; none if None.
        skip_bad: Go on without rows that cannot be read, and count them in ``Task.left_out``.

    Raises:
        InputError: a file is missing, cannot be read or has bad rows, or feedback is about a
            question that is not among the items, or a distribution instead of an answer.
    """
    items = load_items(items_file, skip_bad=skip_bad)
    left_out = {f"bad rows of {items_file}": items.n_bad}
    feedback: tuple[Feedback, ...] = ()
    if feedback_file is not None:
        loaded = load_feedback(feedback_file, skip_bad=skip_bad)
        left_out[f"bad rows of {feedback_file}"] = loaded.n_bad
        _check_said(loaded.rows, feedback_file)
        feedback = _linked(items.rows, loaded.rows, feedback_file, items_file)
    return Task(
        name="own",
        items=tuple(items.rows),
        wording=SURVEY_WORDING,
        metrics=OPINION_METRICS,
        feedback=feedback,
        ordinal=ordinal_items(items.rows),
        left_out={reason: n for reason, n in left_out.items() if n},
    )


def _file(folder: Path, stem: str) -> Path | None:
    """The folder's one file of that name, in whatever form of table."""
    files = [file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").exists()]
    if len(files) > 1:
        raise InputError(f"{folder} holds {files[0].name} and {files[1].name}: keep one of them")
    return files[0] if files else None


def _check_said(rows: Sequence[Feedback], file: Path) -> None:
    """Refuse rows that no draw would ever take, since nobody of the group says anything in them."""
    silent = [row for row in rows if row.answer is None and row.comment is None]
    if silent:
        raise InputError(
            f"{file}: feedback {shortened(silent[0].id)} holds a distribution and nobody's answer, "
            f"as {len(silent)} row(s) do: give the distributions of groups among the items"
        )


def _linked(
    items: Sequence[Item], rows: Sequence[Feedback], file: Path, items_file: Path
) -> tuple[Feedback, ...]:
    """The rows, each with the id of the item that it is about."""
    by_id = {item.id: item for item in items}
    ids: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for item in items:
        ids.setdefault((item.prompt, item.options), []).append(item.id)
    linked: list[Feedback] = []
    problems: list[str] = []
    for row in rows:
        same = ids.get((row.prompt, row.options), [])
        if row.item in same:
            linked.append(row)
        elif row.item in by_id:
            what = "other options" if row.prompt == by_id[row.item].prompt else "another prompt"
            problems.append(f"{shortened(row.id)} has {what} than its item {shortened(row.item)}")
        elif len(same) == 1:
            linked.append(row.model_copy(update={"item": same[0]}))
        elif same:
            which = " and ".join(map(shortened, same[:2]))
            problems.append(f"{shortened(row.id)} may be about {which}, which ask the same")
        else:
            problems.append(f"{shortened(row.id)} is about no item's prompt and options")
    if problems:
        named = "; ".join(problems[:_MOST_NAMED])
        more = len(problems) - _MOST_NAMED
        raise InputError(
            f"{file}: feedback {named}{f'; and {more} rows more' if more > 0 else ''}: write the "
            f"id, prompt and options of an item of {items_file}, in the same spelling and order"
        )
    return tuple(linked)
