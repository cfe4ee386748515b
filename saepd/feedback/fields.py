"""What single fields of items and feedback may hold: names, texts, shares, counts."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PositiveInt,
    StringConstraints,
    ValidationInfo,
)

from saepd.feedback.texts import composed, visible

# How far from 1 shares may sum, as rounded ones do.
SUM_TOLERANCE = 0.05
# Names under which saepd itself reports beside the perspectives' own.
RESERVED = {
    "base": "the model without steering",
    "merged": "the answer of all perspectives together",
    "all": "the mean over all perspectives",
}


def _text(value: str) -> str:
    text = composed(value)
    if text and not visible(text):
        raise ValueError("holds only characters that cannot be seen: write some text")
    return text


def _name(value: str) -> str:
    return visible(_text(value))


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
        # A decimal comma makes two numbers of one.
        comma = ", with decimal points" if len(distribution) == 2 * n_options else ""
        raise ValueError(
            f"{len(distribution)} numbers for {n_options} options: give one for each{comma}"
        )
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
    AfterValidator(_text),
    BeforeValidator(_whole_as_text),
]
Name = Annotated[Text, AfterValidator(_name)]
NameOrEmpty = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_name),
    BeforeValidator(_whole_as_text),
]
Perspective = Annotated[Text, AfterValidator(perspective_name)]
Distribution = Annotated[
    tuple[float, ...], BeforeValidator(_no_truth), AfterValidator(_over_options)
]
MaybeDistribution = Annotated[
    tuple[float, ...] | None, BeforeValidator(_no_truth), AfterValidator(_over_options)
]
Count = Annotated[PositiveInt, BeforeValidator(_no_truth)]
