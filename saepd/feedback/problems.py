"""What is wrong with the rows of a file, and the report of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_LISTED = 50
# So many different messages of one kind are told in full before the rest is only counted.
_MAX_OF_A_KIND = 5
_VALUES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one row: where it is, what it is, what would be right.

    Attributes:
        source: The file, or what was given instead of one.
        where: The place of its row, as ``line 3`` (the line it starts on, from 1).
        field: The field, or ``"row"`` where the row cannot be read at all.
        message: What is wrong and what would be right.
    """

    source: str
    where: str
    field: str
    message: str

    def __str__(self) -> str:
        """The problem as one line of a report."""
        return f"{self.source}, {self.where}, {self.field}: {self.message}"


def n_bad_rows(problems: Sequence[Problem]) -> int:
    """How many rows the problems are about."""
    return len({problem.where for problem in problems})


def problem_report(problems: Sequence[Problem]) -> str:
    """One text for one file's problems: how many rows are bad, then at most 50 lines of what.

    Rows with the same problem share a line, and so do those with more than a few of one kind.
    """
    source = problems[0].source
    n_bad = n_bad_rows(problems)
    same: dict[tuple[str, str], list[Problem]] = {}
    kinds: dict[tuple[str, str], int] = {}
    more: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        key = (problem.field, problem.message)
        kind = (problem.field, _VALUES.sub("", problem.message))
        if key not in same and kinds.get(kind, 0) == _MAX_OF_A_KIND:
            more.setdefault(kind, []).append(problem)
            continue
        if key not in same:
            kinds[kind] = kinds.get(kind, 0) + 1
        same.setdefault(key, []).append(problem)
    lines = [
        f"{source}, {_places(group)}, {field}: {message}"
        for (field, message), group in same.items()
    ]
    lines += [
        f"{source}, {_places(group)}, {field}: more of the kind, as {group[0].message}"
        for (field, _), group in more.items()
    ]
    report = [f"{source}: {n_bad} bad row{'s' if n_bad > 1 else ''}", *lines[:MAX_LISTED]]
    if len(lines) > MAX_LISTED:
        report.append(f"and {len(lines) - MAX_LISTED} more")
    return "\n".join(report)


def _places(group: Sequence[Problem]) -> str:
    first = group[0].where
    return f"{first} and {len(group) - 1} more" if len(group) > 1 else first
