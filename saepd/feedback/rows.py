"""Read JSONL and CSV files row by row: plain values, or why a row cannot be read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Question

# A row not yet validated, or a message that says why it cannot be read.
RawRow = dict[str, Any] | str

_NOT_UTF8 = "not UTF-8: save the file in that encoding"


def raw_rows(path: Path, schema: type[Question]) -> Iterator[tuple[int, RawRow]]:
    """(line the row starts on, the row), blank lines left out."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".csv"):
        raise InputError(f"{path}: unknown suffix {suffix!r}: use a .jsonl or a .csv file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: name a readable file") from error
    with file:
        yield from _jsonl_rows(file) if suffix == ".jsonl" else _csv_rows(file, path, schema)


def _jsonl_rows(file: BinaryIO) -> Iterator[tuple[int, RawRow]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode(_encoding(number)))
        except UnicodeDecodeError:
            yield number, _NOT_UTF8
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON ({error}): write one JSON object on the line"
        else:
            is_object = isinstance(row, dict)
            yield number, row if is_object else f"{shortened(row)} is not an object: write {{...}}"


def _csv_rows(file: BinaryIO, path: Path, schema: type[Question]) -> Iterator[tuple[int, RawRow]]:
    # A decoding error would end the reader; surrogates carry bad bytes through to their row.
    lines = (line.decode(_encoding(n), "surrogateescape") for n, line in enumerate(file, 1))
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"not CSV ({error}): close every quote, and double a quote within quotes"
            continue
        if not any(cells):
            continue
        if not header:
            header = cells
            _check_header(header, f"{path}, line {number}", schema)
        elif len(cells) != len(header):
            message = f"{len(cells)} columns where the header has {len(header)}"
            yield number, f"{message}: write one cell for each, in quotes if it holds a comma"
        elif not _is_unicode("".join(cells)):
            yield number, _NOT_UTF8
        else:
            row: dict[str, Any] = {k: v for k, v in zip(header, cells, strict=True) if v}
            # An empty cell is how a CSV writes the empty list of a free-text question.
            row["options"] = _listed(row.get("options", ""))
            if "distribution" in row:
                row["distribution"] = _listed(row["distribution"])
            yield number, row


def _check_header(header: list[str], where: str, schema: type[Question]) -> None:
    """Raise what is wrong with a CSV header, since it would be wrong with every row."""
    fields = schema.model_fields
    missing = [name for name, f in fields.items() if f.is_required() and name not in header]
    if missing:
        raise InputError(f"{where}: no column {', '.join(missing)}: the header needs each of these")
    for name in header:
        if name not in fields or header.count(name) > 1:
            raise InputError(
                f"{where}: column {shortened(name)} is unknown or there twice: use any of "
                f"{', '.join(fields)}, once"
            )


def _listed(cell: str) -> list[Any]:
    """The values of a CSV cell that holds several."""
    if cell.startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass
    return cell.split("|") if cell else []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoding(line: int) -> str:
    """Spreadsheets start a UTF-8 file with a byte-order mark, which is no part of the text."""
    return "utf-8-sig" if line == 1 else "utf-8"
