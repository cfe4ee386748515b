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

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Generic, NamedTuple, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from saepd.errors import InputError
from saepd.files import write_atomically

SUM_TOLERANCE = 0.05
MAX_LISTED = 50


def _over_options(
    distribution: tuple[float, ...] | None, info: ValidationInfo
) -> tuple[float, ...] | None:
    """The distribution scaled to sum to 1; ValueError where it is none over the options."""
    if distribution is None or "options" not in info.data:
        return distribution
    n_options = len(info.data["options"])
    if not n_options:
        raise ValueError("there are no options to share among: give options, or an answer instead")
    if len(distribution) != n_options:
        raise ValueError(f"{len(distribution)} numbers for {n_options} options: give one for each")
    if not all(math.isfinite(share) and share >= 0 for share in distribution):
        raise ValueError("shares must be finite numbers from 0 to 1")
    total = math.fsum(distribution)
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"sums to {total:.4g}: shares must sum to 1 (within {SUM_TOLERANCE})")
    # Dividing again what sums to 1 but for rounding would change a file at each reading.
    if abs(total - 1) < 1e-12:
        return distribution
    return tuple(share / total for share in distribution)


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_TextOrEmpty = Annotated[str, StringConstraints(strip_whitespace=True)]
_Distribution = Annotated[tuple[float, ...], AfterValidator(_over_options)]
_MaybeDistribution = Annotated[tuple[float, ...] | None, AfterValidator(_over_options)]


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
    prompt: Text
    options: tuple[Text, ...]

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if len(options) == 1:
            raise ValueError(
                f"only one option ({_short(options[0])}): give two or more, or [] for free text"
            )
        twice = [option for option in options if options.count(option) > 1]
        if twice:
            raise ValueError(f"{_short(twice[0])} is there twice: options must differ")
        return options


class Item(_Question):
    """One question, with what each perspective is known to answer.

    Attributes:
        id: Name of the question.
        prompt: The question itself, without its options.
        options: Two or more, in their natural order; none for free text.
        topic: Questions of one topic are spread evenly when items are split; may be empty.
        distributions: Perspective -> share of each option, [n_options], summing to 1; may be empty.
        counts: Perspective -> number of respondents behind its distribution; may be empty.
    """

    topic: _TextOrEmpty = ""
    distributions: dict[Text, _Distribution] = {}
    counts: dict[Text, PositiveInt] = {}


class Feedback(_Question):
    """What one person (or, with a distribution, one group) of a perspective said about an item.

    Attributes:
        id: Name of this row, unique in its file.
        prompt: The question itself, without its options.
        options: Two or more, in their natural order; none for free text.
        perspective: Whose feedback this is.
        item: Id of the question; derived from prompt and options where none is given, so rows
            that ask the same belong to the same item.
        comment: What was said about the question in free words.
        distribution: Share of each option, [n_options], summing to 1.
        answer: One of the options; any text where there are none.
    """

    perspective: Text
    item: _TextOrEmpty = Field(default="", validate_default=True)
    comment: Text | None = None
    distribution: _MaybeDistribution = None
    # Last, so that its validator sees whether a comment or a distribution stands in for it.
    answer: Text | None = Field(default=None, validate_default=True)

    def as_item(self) -> Item:
        """The question this is feedback on, without any gold distribution."""
        return Item(id=self.item, prompt=self.prompt, options=self.options)

    @field_validator("item")
    @classmethod
    def _derive_item(cls, item: str, info: ValidationInfo) -> str:
        if item or not {"prompt", "options"} <= info.data.keys():
            return item
        return f"{_fingerprint(info.data['prompt'], *info.data['options']):016x}"

    @field_validator("answer")
    @classmethod
    def _check_answer(cls, answer: str | None, info: ValidationInfo) -> str | None:
        options = info.data.get("options", ())
        if answer is not None and options and answer not in options:
            listed = ", ".join(map(_short, options))
            raise ValueError(f"{_short(answer)} is not an option: write one of {listed}")
        # A field that failed is not in the data: it was given, if wrongly.
        others = (info.data.get(name, "given") for name in ("comment", "distribution"))
        if answer is None and not any(others):
            raise ValueError("missing: give an answer, or a distribution or a comment instead")
        return answer


class _ItemRow(_Question):
    topic: _TextOrEmpty = ""
    perspective: Text | None = None
    distribution: _MaybeDistribution = Field(default=None, validate_default=True)
    count: PositiveInt | None = None

    @field_validator("distribution")
    @classmethod
    def _check_pair(
        cls, distribution: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        if (distribution is None) != (info.data.get("perspective", "given") is None):
            raise ValueError("goes together with a perspective: give both or neither")
        return distribution

    @field_validator("count")
    @classmethod
    def _check_count(cls, count: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("distribution", "given") is None:
            raise ValueError("goes together with a distribution: give both or neither")
        return count


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


_Row = TypeVar("_Row", bound=_Question)


class Loaded(NamedTuple, Generic[_Row]):
    """What was read from a file.

    Attributes:
        rows: The good rows, in the file's order.
        problems: What was wrong with the rows left out; empty unless ``skip_bad`` was asked for.
    """

    rows: list[_Row]
    problems: list[Problem]


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

    def complaint(row: Feedback) -> tuple[str, str] | None:
        key = _fingerprint(row.id)
        if key in ids:
            return "id", f"{_short(row.id)} is used by an earlier row: give each row its own"
        ids.add(key)
        # A derived item id cannot disagree with the question it is derived from.
        if "item" in row.model_fields_set:
            question = _fingerprint(row.prompt, *row.options)
            if questions.setdefault(_fingerprint(row.item), question) != question:
                return "item", (
                    f"{_short(row.item)} has another prompt or other options in an earlier row: "
                    "give each question its own"
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
    items: dict[str, dict[str | None, _ItemRow]] = {}

    def complaint(row: _ItemRow) -> tuple[str, str] | None:
        rows = items.setdefault(row.id, {})
        if row.perspective in rows:
            return "id", (
                f"{_short(row.id)} with this perspective is used by an earlier row: give each "
                "item its own, and each row of an item another perspective"
            )
        for first in rows.values():
            for name in ("prompt", "options", "topic"):
                if getattr(first, name) != getattr(row, name):
                    return name, (
                        f"differs from an earlier row of item {_short(row.id)}: rows of one item "
                        "must share prompt, options and topic"
                    )
        rows[row.perspective] = row
        return None

    problems: list[Problem] = []
    for _ in _stream(Path(path), _ItemRow, complaint, problems if skip_bad else None):
        pass
    return Loaded([_joined(list(rows.values())) for rows in items.values()], problems)


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
                f"cannot draw {n} rows of perspective {_short(perspective)}: there are "
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


# A row not yet validated, or a message that says why it cannot be read.
_RawRow = dict[str, Any] | str

_NOT_UTF8 = "not UTF-8: save the file in that encoding"
_MESSAGES = {
    "value_error": "{error}",
    "missing": "missing: every row needs it",
    "extra_forbidden": "no such field: rename it to one of {fields}, or remove it",
    "string_type": "{input} is not text: write it in quotes",
    "string_too_short": "empty: write some text",
    "string_unicode": "half a surrogate pair is no character: write valid Unicode",
    "tuple_type": "{input} is not a list: write it as one",
    "float_type": "{input} is not a number: write one",
    "float_parsing": "{input} is not a number: write one",
}


def _stream(
    path: Path,
    schema: type[_Row],
    complaint: Callable[[_Row], tuple[str, str] | None],
    problems: list[Problem] | None,
) -> Iterator[_Row]:
    """Valid rows; ``complaint`` says what makes one wrong that only the rows before it can tell."""
    found: list[Problem] = [] if problems is None else problems
    n_before = len(found)
    any_good = False
    for line, raw in _raw_rows(path, schema):
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


def _validated(raw: _RawRow, schema: type[_Row]) -> tuple[_Row | None, list[tuple[str, str]]]:
    """The row, or None and the (field, message) of all that is wrong with it."""
    if isinstance(raw, str):
        return None, [("row", raw)]
    try:
        return schema.model_validate({k: v for k, v in raw.items() if v is not None}), []
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            message = _MESSAGES.get(fault["type"], "{input}: {error}").format(
                input=_short(fault["input"]),
                error=fault["msg"].removeprefix("Value error, "),
                fields=", ".join(schema.model_fields),
            )
            faults.append((str(fault["loc"][0]) if fault["loc"] else "row", message))
        return None, faults


def _raw_rows(path: Path, schema: type[_Question]) -> Iterator[tuple[int, _RawRow]]:
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


def _jsonl_rows(file: BinaryIO) -> Iterator[tuple[int, _RawRow]]:
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
            yield number, row if is_object else f"{_short(row)} is not an object: write {{...}}"


def _csv_rows(file: BinaryIO, path: Path, schema: type[_Question]) -> Iterator[tuple[int, _RawRow]]:
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


def _check_header(header: list[str], where: str, schema: type[_Question]) -> None:
    """Raise what is wrong with a CSV header, since it would be wrong with every row."""
    fields = schema.model_fields
    missing = [name for name, f in fields.items() if f.is_required() and name not in header]
    if missing:
        raise InputError(f"{where}: no column {', '.join(missing)}: the header needs each of these")
    for name in header:
        if name not in fields or header.count(name) > 1:
            raise InputError(
                f"{where}: column {_short(name)} is unknown or there twice: use any of "
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


def _joined(rows: list[_ItemRow]) -> Item:
    distributions: dict[str, tuple[float, ...]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row.perspective and row.distribution:
            distributions[row.perspective] = row.distribution
            if row.count:
                counts[row.perspective] = row.count
    question = rows[0].model_dump(include={"id", "prompt", "options", "topic"})
    return Item(**question, distributions=distributions, counts=counts)


def _fingerprint(*texts: str) -> int:
    digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _short(value: object) -> str:
    """A value as it may stand in a message: quoted, escaped and at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
