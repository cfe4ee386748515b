"""The files in which feedback and items come.

Both kinds of file are tables as `saepd.feedback.tables` reads them: JSONL (one object a line), JSON
(a list of objects), CSV or TSV (a header, then one row each) and parquet. In a CSV, ``options`` and
``distribution`` are a JSON or printed list, or values separated by ``|``; an empty cell is an
absent value.

A row of feedback has ``id`` (of the row, unique in the file), ``perspective``, ``prompt`` (the
question without its options) and ``options`` (two or more, or an empty list for free text), at
least one of ``answer``, ``distribution`` (a share for each option, where a row stands for many
people) and ``comment``, and optionally ``item``, the id of the question it is about. Rows with the
same prompt and other options are about another item, which is logged where the row names none.

A row of items has ``id``, ``prompt`` and ``options``, optionally ``topic``, and optionally
``perspective`` with its gold ``distribution`` and the ``count`` of people behind that. An item with
several golds has one row for each perspective.

A file is read to its end before its bad rows are reported, all in one `InputError`; or, when the
caller asks for it, the bad rows are left out and listed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from saepd.common.errors import InputError
from saepd.common.files import write_atomically
from saepd.common.messages import shortened
from saepd.feedback.faults import Fault, FieldError
from saepd.feedback.literals import literal_value
from saepd.feedback.problems import Problem, n_bad_rows, problem_report
from saepd.feedback.schema import Feedback, Item, ItemRow, Question, joined
from saepd.feedback.tables import RawRow, table_rows
from saepd.feedback.texts import fingerprint, visible

# Files whose cells hold one value, so that a list is written as a text.
_FLAT = (".csv", ".tsv", ".parquet")
_log = logging.getLogger(__name__)

_Row = TypeVar("_Row", bound=Question)
_Complaint = Callable[[str, _Row], Fault | None]


class LoadedRows(list[_Row]):
    """The good rows of a file, in its order, and what was wrong with the others.

    Attributes:
        problems: What was wrong with the rows left out; empty unless ``skip_bad`` was asked for.
    """

    def __init__(self, rows: Iterable[_Row], problems: list[Problem]) -> None:
        super().__init__(rows)
        self.problems = problems

    @property
    def rows(self) -> list[_Row]:
        """The good rows as a plain list."""
        return list(self)

    @property
    def n_bad(self) -> int:
        """Rows left out."""
        return n_bad_rows(self.problems)


def stream_feedback(
    path: str | Path, *, problems: list[Problem] | None = None
) -> Iterator[Feedback]:
    """Read feedback one row at a time, without ever holding the file.

    Args:
        path: A ``.jsonl``, ``.csv``, ``.tsv``, ``.json`` or ``.parquet`` file; a ``.json`` is held
            whole.
        problems: Given a list, bad rows are left out and what is wrong with them is appended to
            it. Without one, the first bad row ends the yielding, the rest is only checked, and the
            report is raised at the end; to act on no row of a bad file, use `load_feedback`.

    Yields:
        The rows, in the file's order.

    Raises:
        InputError: on iterating: the file cannot be read, has another suffix or a wrong header,
            holds no (good) row, or holds bad rows and ``problems`` is None.
    """
    return feedback_in(file_rows(Path(path), Feedback), str(path), problems)


def load_feedback(path: str | Path, *, skip_bad: bool = False) -> LoadedRows[Feedback]:
    """Read a whole file of feedback.

    Args:
        path: A ``.jsonl``, ``.csv``, ``.tsv``, ``.json`` or ``.parquet`` file.
        skip_bad: Leave bad rows out and list their problems in the result.

    Returns:
        The good rows, a list; its ``problems`` say what was wrong with the rows left out.

    Raises:
        InputError: the file cannot be read, has another suffix or a wrong header, holds no (good)
            row, or holds bad rows and ``skip_bad`` is False.
    """
    problems: list[Problem] = []
    return LoadedRows(stream_feedback(path, problems=problems if skip_bad else None), problems)


def load_items(path: str | Path, *, skip_bad: bool = False) -> LoadedRows[Item]:
    """Read a whole file of items, joining the rows that give one item several distributions.

    Args:
        path: A ``.jsonl``, ``.csv``, ``.tsv``, ``.json`` or ``.parquet`` file.
        skip_bad: Leave bad rows out and list their problems in the result.

    Returns:
        The good items, a list; its ``problems`` say what was wrong with the rows left out.

    Raises:
        InputError: as `load_feedback`.
    """
    items: dict[str, dict[str | None, ItemRow]] = {}

    def complaint(where: str, row: ItemRow) -> Fault | None:
        rows = items.setdefault(row.id, {})
        if row.perspective in rows:
            return Fault(
                "id",
                f"{shortened(row.id)} with this perspective is used by an earlier row: give each "
                "item its own, and each row of an item another perspective",
            )
        first = next(iter(rows.values()), row)
        for name in ("prompt", "options", "topic"):
            if getattr(first, name) != getattr(row, name):
                return Fault(
                    name,
                    f"differs from an earlier row of item {shortened(row.id)}: rows of one "
                    "item must share prompt, options and topic",
                )
        rows[row.perspective] = row
        return None

    problems: list[Problem] = []
    raw = file_rows(Path(path), ItemRow)
    for _ in _valid(raw, str(path), ItemRow, complaint, problems if skip_bad else None):
        pass
    return LoadedRows((joined(list(rows.values())) for rows in items.values()), problems)


def feedback_in(
    raw: Iterable[RawRow], source: str, problems: list[Problem] | None
) -> Iterator[Feedback]:
    """The rows of feedback in a table, as `stream_feedback`.

    Args:
        raw: Where each row is, and its fields.
        source: What messages call the table.
        problems: List that what is wrong is appended to, as for `stream_feedback`.
    """
    # 8-byte hashes keep a million ids of whatever length in 70 MB; that any two of a million
    # differing ids share one has a chance of 3 in 100 million.
    ids: set[int] = set()
    question_of_item: dict[int, int] = {}
    question_of_prompt: dict[int, int] = {}
    other_options: list[tuple[str, str]] = []

    def complaint(where: str, row: Feedback) -> Fault | None:
        key = fingerprint(row.id)
        if key in ids:
            return Fault(
                "id", f"{shortened(row.id)} is used by an earlier row: give each row its own"
            )
        ids.add(key)
        question = fingerprint(*map(visible, (row.prompt, *row.options)))
        # A derived item id cannot disagree with the question it is derived from.
        if "item" not in row.model_fields_set:
            if (
                question_of_prompt.setdefault(fingerprint(visible(row.prompt)), question)
                != question
            ):
                other_options.append((where, row.prompt))
        elif question_of_item.setdefault(fingerprint(row.item), question) != question:
            return Fault(
                "item",
                f"{shortened(row.item)} has another prompt or other options in an earlier row: "
                "give each question its own",
            )
        return None

    yield from _valid(raw, source, Feedback, complaint, problems)
    if other_options:
        where, prompt = other_options[0]
        _log.warning(
            "%s: %d row(s) ask a question of an earlier row with other options, or with them in "
            "another order, and so are about another item; the first is %s, %s",
            source,
            len(other_options),
            where,
            shortened(prompt),
        )


def feedback_hash(rows: Iterable[Feedback]) -> str:
    """SHA-256 (hex) of what the rows say, the same in whichever order they come."""
    digests = []
    for row in rows:
        # Sorted keys and no absent fields: a field added to the schema keeps old hashes valid.
        text = json.dumps(row.model_dump(exclude_none=True), sort_keys=True)
        digests.append(hashlib.sha256(text.encode()).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def write_feedback(path: str | Path, rows: Iterable[Feedback]) -> None:
    """Write rows as JSONL; the file appears complete or not at all.

    Raises:
        InputError: the path does not end in ``.jsonl``.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise InputError(f"{path}: feedback is written as JSONL, so name the file .jsonl")
    lines = [row.model_dump_json(exclude_none=True) + "\n" for row in rows]
    write_atomically(path, "".join(lines).encode())


def flat_row(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a table whose cells hold one value each: its lists out of their texts."""
    # An empty cell is how such a table writes the empty list of a free-text question.
    row = values | {"options": listed(values.get("options", ""))}
    if "distribution" in row:
        row["distribution"] = listed(row["distribution"])
    return row


def listed(cell: object) -> object:
    """The values of a cell that holds several as a text: as a list, or separated by ``|``."""
    if not isinstance(cell, str):
        return cell
    if cell.lstrip().startswith(("[", "(")):
        try:
            return literal_value(cell)
        except ValueError:
            pass
    return cell.split("|") if cell.strip() else []


def file_rows(path: Path, schema: type[Question]) -> Iterator[RawRow]:
    """The raw rows of a file of this schema."""
    fields = schema.model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    is_flat = path.suffix.lower() in _FLAT
    for where, values in table_rows(path, required, fields):
        yield where, flat_row(values) if is_flat and isinstance(values, dict) else values


def _valid(
    raw: Iterable[RawRow],
    source: str,
    schema: type[_Row],
    complaint: _Complaint[_Row],
    problems: list[Problem] | None,
) -> Iterator[_Row]:
    """Valid rows; ``complaint`` says what makes one wrong that only the rows before it can tell."""
    collected: list[Problem] = [] if problems is None else problems
    n_before = len(collected)
    any_good = False
    for where, values in raw:
        row, faults = _validated(values, schema)
        if row is not None and (fault := complaint(where, row)):
            faults = [fault]
        collected += [Problem(source, where, field, message) for field, message in faults]
        if row is not None and not faults:
            any_good = True
            if problems is not None or not collected:
                yield row
    if len(collected) > n_before and (problems is None or not any_good):
        raise InputError(problem_report(collected[n_before:]))
    if not any_good:
        raise InputError(f"{source} holds no rows: it needs at least one")


def _validated(values: dict[str, Any] | str, schema: type[_Row]) -> tuple[_Row | None, list[Fault]]:
    """The row, or None and all that is wrong with it."""
    if isinstance(values, str):
        return None, [Fault("row", values)]
    try:
        return schema(**{k: v for k, v in values.items() if v is not None}), []
    except FieldError as error:
        return None, error.faults
