"""What people answered: one question as an item, one answer to it as a row of feedback."""

from __future__ import annotations

import hashlib
import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from saepd.common.messages import shortened
from saepd.feedback.faults import FieldError, faults_in

SUM_TOLERANCE = 0.05
# Names under which saepd itself reports beside the perspectives' own.
RESERVED = {
    "base": "the model without steering",
    "merged": "the answer of all perspectives together",
    "all": "the mean over all perspectives",
}
# Characters that leave no mark: soft hyphen, zero-width space, word joiner, byte-order mark.
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_OTHER_BLANKS = re.compile(r"[^\S\n\r\t ]")


def visible(text: str) -> str:
    """A text as a reader sees it: composed characters, plain blanks, nothing without a mark."""
    text = unicodedata.normalize("NFC", text)
    return _OTHER_BLANKS.sub(" ", _UNSEEN.sub("", text)).strip()


def composed(text: str) -> str:
    """A text in the composed form of Unicode (NFC).

    Raises:
        ValueError: it holds a control character, as NUL, which a damaged file has and no text.
    """
    if control := _CONTROL.search(text):
        raise ValueError(
            f"holds the control character {control[0]!r}, which no text has: take it out, or save "
            "the file again as UTF-8"
        )
    return unicodedata.normalize("NFC", text)


def _name(value: str) -> str:
    seen = visible(composed(value))
    if value and not seen:
        raise ValueError("holds only characters that cannot be seen: write some text")
    return seen


def _whole_as_text(value: object) -> object:
    """Whole numbers as text, which is what ids and scales of numbers often are in JSON."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("nan stands for no value: leave the field out where there is none")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return value


def _no_truth(value: object) -> object:
    """What is to be a number; pydantic would read true as 1."""
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if isinstance(one, bool):
            raise ValueError(f"{one} is not a number: write one")
    return value


def perspective_name(value: str) -> str:
    """A perspective's name as a reader sees it.

    Raises:
        ValueError: nothing of it can be seen, or saepd itself reports under this name.
    """
    value = _name(value)
    if not value:
        raise ValueError("a perspective needs a name: write some text")
    if value in RESERVED:
        raise ValueError(
            f"{value!r} is what saepd calls {RESERVED[value]}: give the perspective another name"
        )
    return value


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
    # fsum raises where a sum is beyond what a float holds.
    total = math.fsum(distribution) if max(distribution) < 1e9 else math.inf
    if abs(total - 1) > SUM_TOLERANCE:
        percent = "; divide percentages by 100" if abs(total - 100) <= 100 * SUM_TOLERANCE else ""
        raise ValueError(
            f"sums to {total:.4g}: shares must sum to 1 (within {SUM_TOLERANCE}){percent}"
        )
    # Dividing again what sums to 1 but for rounding would change a file at each reading.
    if abs(total - 1) < 1e-12:
        return distribution
    return tuple(share / total for share in distribution)


Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1),
    AfterValidator(composed),
    BeforeValidator(_whole_as_text),
]
_Name = Annotated[Text, AfterValidator(_name)]
_NameOrEmpty = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_name),
    BeforeValidator(_whole_as_text),
]
_Perspective = Annotated[Text, AfterValidator(perspective_name)]
_Distribution = Annotated[
    tuple[float, ...], BeforeValidator(_no_truth), AfterValidator(_over_options)
]
_MaybeDistribution = Annotated[
    tuple[float, ...] | None, BeforeValidator(_no_truth), AfterValidator(_over_options)
]
_Count = Annotated[PositiveInt, BeforeValidator(_no_truth)]


class Question(BaseModel):
    """What items and feedback share; unknown fields are refused, so that a typo is seen.

    Text is stripped and in the composed form of Unicode (NFC); in names (``id``, ``item``,
    ``perspective``, ``topic``) every kind of blank is a plain one, and characters that leave no
    mark are taken out, so that what looks the same is the same.

    Raises:
        FieldError: an `InputError` that tells what is wrong with each field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Name
    prompt: Text
    options: tuple[Text, ...]

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            what = f"{type(self).__name__}(id={shortened(fields.get('id'))})"
            raise FieldError(what, faults_in(error, type(self).model_fields)) from None

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if len(options) == 1:
            raise ValueError(
                f"only one option ({shortened(options[0])}): give two or more, or [] for free text"
            )
        [(twice, count)] = Counter(map(visible, options)).most_common(1) or [("", 0)]
        if count > 1:
            unseen = "" if twice in options and options.count(twice) > 1 else ", to the eye"
            raise ValueError(f"{shortened(twice)} is there twice{unseen}: options must differ")
        return options


class Item(Question):
    """One question, with what each perspective is known to answer.

    Attributes:
        id: Name of the question.
        prompt: The question itself, without its options.
        options: Two or more, in their natural order; none for free text.
        topic: Questions of one topic are spread evenly when items are split; may be empty.
        distributions: Perspective -> share of each option, [n_options], summing to 1; may be empty.
        counts: Perspective -> number of respondents behind its distribution; may be empty.
    """

    topic: _NameOrEmpty = ""
    distributions: dict[_Perspective, _Distribution] = {}
    counts: dict[_Perspective, _Count] = {}


class Feedback(Question):
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
        answer: One of the options, which it may differ from in blanks and characters that cannot be
            told apart by eye; any text where there are none.
    """

    perspective: _Perspective
    item: _NameOrEmpty = Field(default="", validate_default=True)
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
        texts = (info.data["prompt"], *info.data["options"])
        return f"{fingerprint(*map(visible, texts)):016x}"

    @field_validator("answer")
    @classmethod
    def _check_answer(cls, answer: str | None, info: ValidationInfo) -> str | None:
        options = info.data.get("options", ())
        if answer is not None and options and answer not in options:
            answer = _option_meant(answer, options)
        # A field that failed is not in the data: it was given, if wrongly.
        others = (info.data.get(name, "given") for name in ("comment", "distribution"))
        if answer is None and not any(others):
            raise ValueError("missing: give an answer, or a distribution or a comment instead")
        return answer


class ItemRow(Question):
    """One row of an items file: a question, and at most one perspective's gold."""

    topic: _NameOrEmpty = ""
    perspective: _Perspective | None = None
    distribution: _MaybeDistribution = Field(default=None, validate_default=True)
    count: _Count | None = None

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


def _option_meant(answer: str, options: tuple[str, ...]) -> str:
    """The option that looks the same; ValueError, naming the one that may be meant, otherwise."""
    for option in options:
        if visible(option) == visible(answer):
            return option

    def bare(text: str) -> str:
        return re.sub(r"[\W_]+", " ", visible(text)).strip().casefold()

    wrong = f"{shortened(answer)} is not an option"
    close = [option for option in options if bare(option) == bare(answer)]
    if len(close) == 1:
        raise ValueError(f"{wrong}: write it as the option is written, {shortened(close[0])}")
    letter = re.fullmatch(r"\W*([a-z])\W*", answer.casefold())
    index = string.ascii_lowercase.index(letter[1]) if letter else len(options)
    if index < len(options):
        raise ValueError(
            f"{wrong}: if it is the letter of one, write that option's text, "
            f"{shortened(options[index])}"
        )
    listed = ", ".join(map(shortened, options[:10])) + (", ..." if len(options) > 10 else "")
    raise ValueError(f"{wrong}: write one of {listed}")


def joined(rows: Sequence[ItemRow]) -> Item:
    """The item that several rows with its id describe."""
    distributions: dict[str, tuple[float, ...]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row.perspective and row.distribution:
            distributions[row.perspective] = row.distribution
            if row.count:
                counts[row.perspective] = row.count
    question = rows[0].model_dump(include={"id", "prompt", "options", "topic"})
    return Item(**question, distributions=distributions, counts=counts)


def fingerprint(*texts: str) -> int:
    """64 bits of BLAKE2b over texts."""
    digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
