"""What people answered: one question as an item, one answer to it as a row of feedback."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from saepd.common.messages import shortened
from saepd.feedback.faults import FieldError, faults_in
from saepd.feedback.fields import (
    Count,
    Distribution,
    MaybeDistribution,
    Name,
    NameOrEmpty,
    Perspective,
    Text,
)
from saepd.feedback.texts import fingerprint, visible


class Question(BaseModel):
    """What items and feedback share; unknown fields are refused, so that a typo is seen.

    Text is stripped and in the composed form of Unicode (NFC); in names (``id``, ``item``,
    ``perspective``, ``topic``) every kind of blank is a plain one, and characters that leave no
    mark are taken out, so that what looks the same is the same.

    Raises:
        FieldError: an `InputError` that tells what is wrong with each field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
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
            # Who separated them otherwise is told how it is done.
            how = ", separated by | in a table" if set(options[0]) & set(",;/\t") else ""
            raise ValueError(
                f"only one option ({shortened(options[0])}): give two or more{how}, or [] for free "
                "text"
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
        options: Texts of the options, two or more, in their natural order; none for free text.
        topic: Name of what the question is about, or nothing; questions of one topic are spread
            evenly when items are split.
        distributions: Perspective -> share of each option, [n_options], summing to 1; may be empty.
        counts: Perspective -> number of respondents behind its distribution; may be empty.

    Raises:
        FieldError: an `InputError` that tells what is wrong with each field.
    """

    topic: NameOrEmpty = ""
    distributions: dict[Perspective, Distribution] = {}
    counts: dict[Perspective, Count] = {}


class Feedback(Question):
    """What one person (or, with a distribution, one group) of a perspective said about an item.

    Attributes:
        id: Name of this row, unique in its file.
        prompt: The question itself, without its options.
        options: Texts of the options, two or more, in their natural order; none for free text.
        perspective: Name of the perspective that says it.
        item: Id of the question; derived from prompt and options where none is given, so rows
            that ask the same belong to the same item.
        comment: What was said about the question in free words.
        distribution: Share of each option among the answers of a group, [n_options], summing to 1.
        answer: One of the options, which it may differ from in blanks and characters that cannot be
            told apart by eye; any text where there are none. It may be missing beside a comment or
            a distribution.

    Raises:
        FieldError: an `InputError` that tells what is wrong with each field.
    """

    perspective: Perspective
    item: NameOrEmpty = Field(default="", validate_default=True)
    comment: Text | None = None
    distribution: MaybeDistribution = None
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

    topic: NameOrEmpty = ""
    perspective: Perspective | None = None
    distribution: MaybeDistribution = Field(default=None, validate_default=True)
    count: Count | None = None

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
