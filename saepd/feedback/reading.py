"""What people answered: the schema of feedback and items, and the files they come in.

Both kinds of file are JSONL (one object a line) or CSV (a header, then one row each; ``options``
and ``distribution`` are a JSON list, or values separated by ``|``; an empty cell is an absent
value). Text is stripped of surrounding white space.

A row of feedback has ``id`` (of the row, unique in the file), ``perspective``, ``prompt`` (the
question without its options) and ``options`` (two or more, or an empty list for free text), at
least one of ``answer``, ``distribution`` (a share for each option, where a row stands for many
people) and ``comment``, and optionally ``item``, the id of the question it is about.

A row of items has ``id``, ``prompt`` and ``options``, optionally ``topic``, and optionally
``perspective`` with its gold ``distribution`` and the ``count`` of people behind that. An item with
several golds has one row for each perspective.

A file is read to its end before its bad rows are reported, all in one `InputError`; or, when the
caller asks for it, the bad rows are left out and listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from saepd.common.errors import InputError
from saepd.common.files import write_atomically
from saepd.common.messages import shortened
from saepd.feedback.faults import Fault, FieldError
from saepd.feedback.rows import RawRow, raw_rows
from saepd.feedback.schema import Feedback, Item, ItemRow, Question, fingerprint, joined

MAX_LISTED = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one row: where it is, what it is, what would be right.

    Attributes:
        path: The file.
        line: The line its row starts on, from 1.
        field: The field, or ``"row"`` where the row cannot be read at all.
        message: What is wrong and what would be right.
    """

    path: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        """The problem as one line of a report."""
        return f"{self.path}, line {self.line}, {self.field}: {self.message}"


_Row = TypeVar("_Row", bound=Question)


class Loaded(NamedTuple, Generic[_Row]):
    """What was read from a file.

    Attributes:
        rows: The good rows, in the file's order.
        problems: What was wrong with the rows left out; empty unless ``skip_bad`` was asked for.
    """

    rows: list[_Row]
    problems: list[Problem]

    @property
    def n_bad(self) -> int:
        """Rows left out."""
        return len({problem.line for problem in self.problems})


def stream_feedback(
    path: str | Path, *, problems: list[Problem] | None = None
) -> Iterator[Feedback]:
    """Read feedback one row at a time, without ever holding the file.

    Args:
        path: A ``.jsonl`` or ``.csv`` file.
        problems: Given a list, bad rows are left out and what is wrong with them is appended to
            it. Without one, the first bad row ends the yielding, the rest is only checked, and the
            report is raised at the end; to act on no row of a bad file, use `load_feedback`.

    Yields:
        The rows, in the file's order.

    Raises:
        InputError: on iterating: the file cannot be read, has another suffix or a wrong header,
            holds no (good) row, or holds bad rows and ``problems`` is None.
    """
    # 8-byte hashes keep a million ids of whatever length in 70 MB; that any two of a million
    # differing ids share one has a chance of 3 in 100 million.
    ids: set[int] = set()
    questions: dict[int, int] = {}

    def complaint(row: Feedback) -> Fault | None:
        key = fingerprint(row.id)
        if key in ids:
            return Fault(
                "id", f"{shortened(row.id)} is used by an earlier row: give each row its own"
            )
        ids.add(key)
        # A derived item id cannot disagree with the question it is derived from.
        if "item" in row.model_fields_set:
            question = fingerprint(row.prompt, *row.options)
            if questions.setdefault(fingerprint(row.item), question) != question:
                return Fault(
                    "item",
                    f"{shortened(row.item)} has another prompt or other options in an earlier row: "
                    "give each question its own",
                )
        return None

    return _stream(Path(path), Feedback, complaint, problems)


def load_feedback(path: str | Path, *, skip_bad: bool = False) -> Loaded[Feedback]:
    """Read a whole file of feedback.

    Args:
        path: A ``.jsonl`` or ``.csv`` file.
        skip_bad: Leave bad rows out and list their problems in the result.

    Raises:
        InputError: the file cannot be read, has another suffix or a wrong header, holds no (good)
            row, or holds bad rows and ``skip_bad`` is False.
    """
    problems: list[Problem] = []
    rows = list(stream_feedback(path, problems=problems if skip_bad else None))
    return Loaded(rows, problems)


def load_items(path: str | Path, *, skip_bad: bool = False) -> Loaded[Item]:
    """Read a whole file of items, joining the rows that give one item several distributions.

    Args:
        path: A ``.jsonl`` or ``.csv`` file.
        skip_bad: Leave bad rows out and list their problems in the result.

    Raises:
        InputError: as `load_feedback`.
    """
    items: dict[str, dict[str | None, ItemRow]] = {}

    def complaint(row: ItemRow) -> Fault | None:
        rows = items.setdefault(row.id, {})
        if row.perspective in rows:
            return Fault(
                "id",
                f"{shortened(row.id)} with this perspective is used by an earlier row: give each "
                "item its own, and each row of an item another perspective",
            )
        for first in rows.values():
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
    for _ in _stream(Path(path), ItemRow, complaint, problems if skip_bad else None):
        pass
    return Loaded([joined(list(rows.values())) for rows in items.values()], problems)


def problem_report(problems: Sequence[Problem]) -> str:
    """One text for one file's problems: how many rows are bad, then the first 50 problems."""
    bad_rows = len({problem.line for problem in problems})
    lines = [f"{problems[0].path}: {bad_rows} bad row{'s' if bad_rows > 1 else ''}"]
    lines += map(str, problems[:MAX_LISTED])
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    return "\n".join(lines)


def sample_feedback(
    rows: Iterable[Feedback], n: int, seed: int, perspectives: Sequence[str] | None = None
) -> list[Feedback]:
    """Draw n rows of each perspective without replacement.

    A perspective's draw depends on its own rows and the seed only: not on the order of the rows,
    nor on which other perspectives there are. A smaller draw is the beginning of a larger one.

    Args:
        rows: Feedback of any perspectives.
        n: Rows per perspective.
        seed: Any integer from 0.
        perspectives: Whose rows to draw, in which order; everybody's, sorted by name, if None.

    Returns:
        n rows of the first perspective, then n of the next.

    Raises:
        InputError: n is not positive, or a perspective has fewer than n rows.
    """
    if n < 1:
        raise InputError(f"cannot draw {n} rows of feedback: draw at least 1 per perspective")
    groups: dict[str, list[Feedback]] = {}
    for row in rows:
        groups.setdefault(row.perspective, []).append(row)
    drawn = []
    for perspective in sorted(groups) if perspectives is None else perspectives:
        group = sorted(groups.get(perspective, []), key=lambda row: row.id)
        if len(group) < n:
            raise InputError(
                f"cannot draw {n} rows of perspective {shortened(perspective)}: there are "
                f"{len(group)}; draw fewer, or add feedback"
            )
        rng = np.random.default_rng([seed, *perspective.encode()])
        drawn += [group[i] for i in rng.permutation(len(group))[:n]]
    return drawn


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


def _stream(
    path: Path,
    schema: type[_Row],
    complaint: Callable[[_Row], Fault | None],
    problems: list[Problem] | None,
) -> Iterator[_Row]:
    """Valid rows; ``complaint`` says what makes one wrong that only the rows before it can tell."""
    found: list[Problem] = [] if problems is None else problems
    n_before = len(found)
    any_good = False
    for line, raw in raw_rows(path, schema):
        row, faults = _validated(raw, schema)
        if row is not None and (fault := complaint(row)):
            faults = [fault]
        found += [Problem(path, line, field, message) for field, message in faults]
        if row is not None and not faults:
            any_good = True
            if problems is not None or not found:
                yield row
    if len(found) > n_before and (problems is None or not any_good):
        raise InputError(problem_report(found[n_before:]))
    if not any_good:
        raise InputError(f"{path} holds no rows: it needs at least one")


def _validated(raw: RawRow, schema: type[_Row]) -> tuple[_Row | None, list[Fault]]:
    """The row, or None and all that is wrong with it."""
    if isinstance(raw, str):
        return None, [Fault("row", raw)]
    try:
        return schema(**{k: v for k, v in raw.items() if v is not None}), []
    except FieldError as error:
        return None, error.faults
