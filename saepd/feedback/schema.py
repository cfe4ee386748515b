"""What people answered: one question as an item, one answer to it as a row of feedback."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

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

from saepd.common.messages import shortened
from saepd.feedback.faults import FieldError, faults_in

SUM_TOLERANCE = 0.05


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


class Question(BaseModel):
    """What items and feedback share; unknown fields are refused, so that a typo is seen.

    Raises:
        FieldError: an `InputError` that tells what is wrong with each field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
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
        twice = [option for option in options if options.count(option) > 1]
        if twice:
            raise ValueError(f"{shortened(twice[0])} is there twice: options must differ")
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

    topic: _TextOrEmpty = ""
    distributions: dict[Text, _Distribution] = {}
    counts: dict[Text, PositiveInt] = {}


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
        return f"{fingerprint(info.data['prompt'], *info.data['options']):016x}"

    @field_validator("answer")
    @classmethod
    def _check_answer(cls, answer: str | None, info: ValidationInfo) -> str | None:
        options = info.data.get("options", ())
        if answer is not None and options and answer not in options:
            listed = ", ".join(map(shortened, options))
            raise ValueError(f"{shortened(answer)} is not an option: write one of {listed}")
        # A field that failed is not in the data: it was given, if wrongly.
        others = (info.data.get(name, "given") for name in ("comment", "distribution"))
        if answer is None and not any(others):
            raise ValueError("missing: give an answer, or a distribution or a comment instead")
        return answer


class ItemRow(Question):
    """One row of an items file: a question, and at most one perspective's gold."""

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
