"""Read any table row by row: CSV, TSV, JSONL, JSON and parquet, as plain values.

Files of text are UTF-8, with or without a byte-order mark, or UTF-16 with one; lines end in any of
the three ways. A CSV may be separated by commas, semicolons or tabs: the one that gives a header
with the columns that are needed. What was found is logged where it is not the usual one. A JSON
file is a list of objects, or what the dataset viewer of the Hugging Face hub hands out.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.literals import json_value
from saepd.feedback.texts import visible

# Where a row is, as "line 3" or "entry 3"; and its values, or why it cannot be read.
RawRow = tuple[str, dict[str, Any] | str]

SUFFIXES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# How files begin that are no text, whatever their name says, and what to do with them.
_NO_TEXT = {
    codecs.BOM_UTF32_LE: "UTF-32: save the file as UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32: save the file as UTF-8",
    b"PK\3\4": "a zip archive, as workbooks of Excel are: save the table as CSV in UTF-8",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"PAR1": "parquet: give it a name that ends in .parquet",
}
_log = logging.getLogger(__name__)


def table_rows(
    path: Path, required: Collection[str] = (), known: Collection[str] | None = None
) -> Iterator[RawRow]:
    """The rows of a file, blank ones left out; an empty cell of a CSV is an absent value.

    Args:
        path: A file with one of the suffixes `SUFFIXES`.
        required: Columns that a header must have.
        known: The only columns that a header may have; any if None.

    Raises:
        InputError: the file cannot be read, has another suffix, or its header is wrong. A row
            that cannot be read is no error: it is yielded as the message that says why.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown suffix {suffix!r}: use one of {', '.join(SUFFIXES)}")
    with opened(path) as file:
        if suffix == ".parquet":
            yield from _parquet_rows(file, path, required, known)
        elif suffix == ".json":
            yield from _json_rows(as_text(file, path), path)
        elif suffix == ".jsonl":
            yield from _jsonl_rows(as_text(file, path))
        else:
            usual = "\t" if suffix == ".tsv" else ","
            yield from _delimited_rows(as_text(file, path), path, usual, required, known)


def opened(path: Path) -> BinaryIO:
    """The file, open for reading.

    Raises:
        InputError: there is none, or it may not be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: name a readable file") from None
    except ValueError:
        raise InputError(f"{shortened(str(path))} is no name of a file: name one") from None


def as_text(file: BinaryIO, path: Path) -> io.TextIOBase:
    """A file's text; bytes that are not UTF-8 are carried through as lone surrogates.

    Raises:
        InputError: the file says, or shows, that it is in another encoding than can be read.
    """
    start = file.read(4)
    file.seek(0)
    for beginning, what in _NO_TEXT.items():
        if start.startswith(beginning):
            raise InputError(f"{path} is {what}")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = file.read().decode("utf-16")
        except UnicodeDecodeError:
            raise InputError(
                f"{path} begins as UTF-16 but is not: save the file as UTF-8"
            ) from None
        _log.warning("%s is read as UTF-16, as its first bytes say", path)
        return io.StringIO(text, newline="")
    if b"\0" in start[:2]:
        raise InputError(
            f"{path} looks like UTF-16 without the mark that says so: save the file as UTF-8"
        )
    return io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")


def not_utf8(text: str) -> str:
    """Why a text of `as_text` is not UTF-8; empty if it is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = bytes([ord(text[error.start]) & 0xFF])
        before = text[max(0, error.start - 20) : error.start]
        return (
            f"not UTF-8: byte 0x{byte.hex()} after {shortened(before)} is no character there "
            f"(in Windows-1252 it is {byte.decode('cp1252', 'replace')!r}): "
            "save the file in that encoding, UTF-8"
        )
    return ""


def _jsonl_rows(text: io.TextIOBase) -> Iterator[RawRow]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        where = f"line {number}"
        if fault := not_utf8(line):
            yield where, fault
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            yield where, f"{error}, one object on the line"
        else:
            yield where, row if isinstance(row, dict) else _no_object(row)


def _json_rows(text: io.TextIOBase, path: Path) -> Iterator[RawRow]:
    content = text.read()
    if fault := not_utf8(content):
        raise InputError(f"{path} is {fault}")
    try:
        value = json_value(content)
    except ValueError as error:
        raise InputError(f"{path}: {error}, a list of objects") from None
    entries = value.get("rows") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a list: write [{{...}}, ...], one object for each row")
    for number, entry in enumerate(entries, 1):
        where = f"entry {number}"
        if isinstance(value, dict) and isinstance(entry, dict) and "row" in entry:
            if entry.get("truncated_cells"):
                yield where, "the viewer cut a cell short: download the data set itself"
                continue
            entry = entry["row"]
        yield where, entry if isinstance(entry, dict) else _no_object(entry)


def _no_object(value: object) -> str:
    return f"{shortened(value)} is not an object: write {{...}}"


def _delimited_rows(
    text: io.TextIOBase,
    path: Path,
    usual: str,
    required: Collection[str],
    known: Collection[str] | None,
) -> Iterator[RawRow]:
    # A first line of Excel's, "sep=;", would be taken for the header.
    lines = iter(text)
    skipped = 0
    first = ""
    for first in lines:
        if first.strip() and not first.strip().lower().startswith("sep="):
            break
        skipped += 1
        first = ""
    delimiter = _delimiter(first, usual, required)
    if delimiter != usual:
        _log.warning("%s is read with %s between its cells", path, _DELIMITERS[delimiter])
    reader = csv.reader(_chained(first, lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"line {skipped + reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            limit = f"{csv.field_size_limit():,} characters"
            yield (
                where,
                (
                    f"a cell is longer than {limit}: close every quote, or write the rows as JSONL"
                    if "field limit" in str(error)
                    else f"not CSV ({error}): close every quote, and double a quote within quotes"
                ),
            )
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [visible(cell) for cell in cells]
            note = "" if delimiter == usual else f" (cells between {_DELIMITERS[delimiter]})"
            check_columns(header, f"{path}, {where}{note}", required, known)
        elif len(cells) != len(header):
            message = f"{len(cells)} columns where the header has {len(header)}"
            yield (
                where,
                (
                    f"{message}: write one cell for each, in quotes if it holds one of the "
                    f"{_DELIMITERS[delimiter]}"
                ),
            )
        elif fault := not_utf8(delimiter.join(cells)):
            yield where, fault
        elif unnamed := [
            cell
            for name, cell in zip(header, cells, strict=True)
            if known is not None and not name and cell.strip()
        ]:
            yield where, f"{shortened(unnamed[0])} is in a column without a name: name that column"
        else:
            yield where, {k: v for k, v in zip(header, cells, strict=True) if v.strip()}


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str, usual: str, required: Collection[str]) -> str:
    """The usual delimiter, or the one that alone gives the columns that are needed."""

    def columns(delimiter: str) -> list[str]:
        try:
            return [visible(cell) for cell in next(csv.reader([header], delimiter=delimiter), [])]
        except csv.Error:
            return []

    fitting = [d for d in _DELIMITERS if set(required) <= set(columns(d))]
    if usual in fitting:
        return usual
    if fitting:
        return fitting[0]
    # No delimiter gives them all; the one that gives most cells makes the clearest message.
    most = max(_DELIMITERS, key=lambda d: len(columns(d)))
    return most if len(columns(usual)) < 2 else usual


def check_columns(
    header: Sequence[str], where: str, required: Collection[str], known: Collection[str] | None
) -> None:
    """Refuse a header, since what is wrong with it would be wrong with every row.

    Raises:
        InputError: a column is missing, unknown or there twice.
    """
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{where}: no column {', '.join(missing)}: the header needs {', '.join(required)}, and "
            f"is {shortened(', '.join(header))}"
        )
    named = [name for name in header if name]
    for name in named:
        if (known is not None and name not in known) or named.count(name) > 1:
            raise InputError(
                f"{where}: column {shortened(name)} is unknown or there twice: use any of "
                f"{', '.join(known or dict.fromkeys(named))}, once"
            )


def _parquet_rows(
    file: BinaryIO, path: Path, required: Collection[str], known: Collection[str] | None
) -> Iterator[RawRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{path}: reading parquet needs pyarrow: pip install 'saepd[explore]', or write the "
            "rows as JSONL"
        ) from None
    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        check_columns(table.schema_arrow.names, str(path), required, known)
        for batch in table.iter_batches(1024):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield f"row {number}", {name: v for name, v in row.items() if v is not None}
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no parquet that can be read: {reason[:200]}") from None
