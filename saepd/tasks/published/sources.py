"""Read other people's files: rows of CSV, TSV and JSON, and one report of all that is wrong."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.reading import MAX_LISTED

# A row and where in its file it is, as "line 3" or "entry 3".
Row = tuple[str, dict[str, Any]]

_T = TypeVar("_T")
_SPLIT = re.compile(r"train|dev|valid|test", re.IGNORECASE)
_DEFAULTDICT = re.compile(r"defaultdict\(<class 'list'>,\s*(\{.*\})\)", re.DOTALL)


class BadField(Exception):  # noqa: N818 - never leaves this package: `parsed` collects them
    """What is wrong with one field of a row, and what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")


def parsed(path: Path, rows: Iterable[Row], parse: Callable[[dict[str, Any]], _T]) -> list[_T]:
    """Every row parsed.

    Raises:
        InputError: ``parse`` raised `BadField` for some rows, all of which it lists (at most 50),
            or there are no rows.
    """
    values: list[_T] = []
    problems: list[str] = []
    for where, row in rows:
        try:
            values.append(parse(row))
        except BadField as error:
            problems.append(f"{path}, {where}, {error}")
    if problems:
        lines = [f"{path}: {len(problems)} bad row{'s' if len(problems) > 1 else ''}"]
        lines += problems[:MAX_LISTED]
        if len(problems) > MAX_LISTED:
            lines.append(f"and {len(problems) - MAX_LISTED} more")
        raise InputError("\n".join(lines))
    if not values:
        raise InputError(f"{path} holds no rows: it needs at least one")
    return values


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Raises:
        InputError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: name a readable file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save the file in that encoding") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    return _json_value(read_text(path), str(path), "download it again")


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a .csv file with a header, a .jsonl file, or a .json file that holds a list.

    Args:
        path: The file.
        columns: What every row must have; a row may have more.

    Raises:
        InputError: the file cannot be read, has another suffix, or a row is malformed or lacks a
            column.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        rows = _csv_rows(path)
    elif suffix == ".jsonl":
        lines = enumerate(read_text(path).split("\n"), 1)
        values = [(f"line {number}", line) for number, line in lines if line.strip()]
        rows = [
            (where, _json_value(line, f"{path}, {where}", "write one JSON object on the line"))
            for where, line in values
        ]
    elif suffix == ".json":
        value = read_json(path)
        if not isinstance(value, list):
            raise InputError(f"{path} is not a list: write [{{...}}, ...], one object for each row")
        rows = [(f"entry {number}", row) for number, row in enumerate(value, 1)]
    else:
        raise InputError(f"{path}: unknown suffix {suffix!r}: use a .csv, .jsonl or .json file")
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{path}, {where}: {shortened(row)} is not an object: write {{...}}")
        if missing := [column for column in columns if column not in row]:
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
    if not isinstance(value, str):
        raise BadField(column, f"{shortened(value)} is not text: write it in quotes")
    return clean(value, column)


def clean(value: str, field: str) -> str:
    """Text without surrounding white space; `BadField` where nothing is left or it is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadField(
            field, "half a surrogate pair is no character: write valid Unicode"
        ) from None
    if not value.strip():
        raise BadField(field, "empty: write some text")
    return value.strip()


def literal_in(row: dict[str, Any], column: str, kind: type[_T]) -> _T:
    """A column's list or dict, which a CSV holds as the text Python prints for it.

    The text is never evaluated: only literals are read, and the frame of a ``defaultdict``.
    """
    value = row.get(column)
    if isinstance(value, str):
        text = value.strip()
        framed = _DEFAULTDICT.fullmatch(text)
        try:
            value = ast.literal_eval(framed[1] if framed else text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, kind):
        raise BadField(
            column,
            f"{shortened(row.get(column))} is not a {kind.__name__}: write one as Python does",
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
    found = _SPLIT.findall(path.stem)
    return found[-1].lower() if found else path.stem


def _csv_rows(path: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            where, line = f"line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) != len(header):
                raise InputError(
                    f"{path}, {where}: {len(cells)} columns where the header has {len(header)}: "
                    "write one cell for each, in quotes if it holds a comma"
                )
            else:
                rows.append((where, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not CSV ({error}): close every quote") from error
    return rows


def _json_value(text: str, where: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}): {advice}") from error
