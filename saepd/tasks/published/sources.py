"""Read other people's files: rows of tables and JSON, and one report of all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.faults import Fault, FieldError
from saepd.feedback.literals import json_value, literal_value
from saepd.feedback.problems import Problem, problem_report
from saepd.feedback.tables import RawRow, as_text, not_utf8, opened, table_rows
from saepd.feedback.texts import composed

_T = TypeVar("_T")
_SPLIT = re.compile(r"train|dev|valid|test", re.IGNORECASE)


class BadField(Exception):  # noqa: N818 - never leaves this package: `parsed` collects them
    """What is wrong with one field of a row, and what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.fault = Fault(field, message)


def parsed(path: Path, rows: Iterable[RawRow], parse: Callable[[dict[str, Any]], _T]) -> list[_T]:
    """Every row parsed.

    Raises:
        InputError: some rows could not be read, or ``parse`` raised `BadField` or a schema's error
            for them, all of which it lists (in at most 50 lines); or there are no rows.
    """
    values: list[_T] = []
    problems: list[Problem] = []
    for where, row in rows:
        faults: list[Fault] = []
        if isinstance(row, str):
            faults = [Fault("row", row)]
        else:
            try:
                values.append(parse(row))
            except BadField as error:
                faults = [error.fault]
            except FieldError as error:
                faults = error.faults
        problems += [Problem(str(path), where, field, message) for field, message in faults]
    if problems:
        raise InputError(problem_report(problems))
    if not values:
        raise InputError(f"{path} holds no rows: it needs at least one")
    return values


def published_text(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        InputError: the file cannot be read or is not UTF-8 (nor UTF-16 that says so).
    """
    with opened(path) as file:
        text = as_text(file, path).read()
    if fault := not_utf8(text):
        raise InputError(f"{path} is {fault}")
    return text


def published_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON, or an object has a key twice.
    """
    try:
        return json_value(published_text(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {error}, or download the file again") from None


def read_table(path: Path, columns: Sequence[str]) -> list[RawRow]:
    """Rows of a table in any form that `saepd.feedback.tables` reads.

    Args:
        path: The file.
        columns: What every row must have; a row may have more.

    Raises:
        InputError: the file cannot be read, has another suffix, or lacks a column.
    """
    # A CSV or parquet leaves absent values out of a row, and has its columns checked once.
    is_checked = path.suffix.lower() not in (".json", ".jsonl")
    rows = list(table_rows(path, columns))
    for where, row in rows:
        missing = [column for column in columns if column not in row]
        if not is_checked and isinstance(row, dict) and missing:
            raise InputError(
                f"{path}, {where}: no column {', '.join(missing)}: this task needs "
                f"{', '.join(columns)}"
            )
    return rows


def text_in(row: dict[str, Any], column: str) -> str:
    """A column's text, stripped; `BadField` where there is none."""
    value = row.get(column)
    if value is None or value == "":
        raise BadField(column, "missing: every row needs it")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        value = str(value)
    if not isinstance(value, str):
        raise BadField(column, f"{shortened(value)} is not text: write it in quotes")
    return clean(value, column)


def clean(value: str, field: str) -> str:
    """Text, composed (NFC) and stripped; `BadField` where nothing is left or it is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadField(
            field, "half a surrogate pair is no character: write valid Unicode"
        ) from None
    if not value.strip():
        raise BadField(field, "empty: write some text")
    try:
        return composed(value.strip())
    except ValueError as error:
        raise BadField(field, str(error)) from None


def literal_in(row: dict[str, Any], column: str, kind: type[_T]) -> _T:
    """A column's list or dict, which a CSV holds as JSON or as the text Python prints for it."""
    value, reason = row.get(column), ""
    if isinstance(value, str):
        try:
            value = literal_value(value)
        except ValueError as error:
            reason = f" ({error})"
    if not isinstance(value, kind):
        raise BadField(
            column,
            f"{shortened(row.get(column))} is not a {kind.__name__}{reason}: write one as Python "
            "or JSON does",
        )
    return value


def split_files(path: Path, suffix: str) -> list[Path]:
    """The file itself, or those of a folder that are named after a split, in order of name.

    Raises:
        InputError: the folder has no such file.
    """
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix == suffix and _SPLIT.search(p.stem))
    if not files:
        raise InputError(
            f"{path} has no {suffix} file named after a split: name one with train, dev, valid or "
            "test in it, or give the file itself"
        )
    return files


def split_name(path: Path) -> str:
    """The split that a file is named after, or else the file's name."""
    splits = _SPLIT.findall(path.stem)
    return splits[-1].lower() if splits else path.stem
