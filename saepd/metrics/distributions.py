"""What the measures take, and the refusal of anything else.

A set of distributions is one 1-D array per question, and questions may differ in their number of
options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from saepd.common.errors import InputError

Distributions: TypeAlias = Sequence[ArrayLike] | Float[np.ndarray, "questions options"]
Labels: TypeAlias = Sequence[int] | Int[np.ndarray, " questions"]
Options: TypeAlias = Float[np.ndarray, " options"]
PerQuestion: TypeAlias = Float[np.ndarray, " questions"]

_TOLERANCE = 1e-3


def normalised(name: str, distributions: Distributions) -> list[Options]:
    """The distributions as arrays that sum to 1 to the last digit.

    Raises:
        InputError: there is none, or one has fewer than two options, or is no distribution.
    """
    arrays = [np.asarray(d, dtype=float) for d in distributions]
    if not arrays:
        raise InputError(f"{name} is empty: expected one distribution per question")
    for i, p in enumerate(arrays):
        if p.ndim != 1 or len(p) < 2:
            raise InputError(f"{name}[{i}] has shape {p.shape}: expected two or more options")
        if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) <= _TOLERANCE):
            raise InputError(
                f"{name}[{i}] is {np.array2string(p, precision=4, threshold=8)}: expected "
                "probabilities that are finite, not negative, and sum to 1"
            )
    return [p / p.sum() for p in arrays]


def paired(predicted: Distributions, gold: Distributions) -> list[tuple[Options, Options]]:
    """Both distributions of each question.

    Raises:
        InputError: a distribution is invalid, or the two sets do not match.
    """
    p, q = normalised("predicted", predicted), normalised("gold", gold)
    if len(p) != len(q):
        raise InputError(f"predicted has {len(p)} questions and gold {len(q)}: give one for each")
    for i, (left, right) in enumerate(zip(p, q, strict=True)):
        if len(left) != len(right):
            raise InputError(
                f"predicted[{i}] has {len(left)} options and gold[{i}] {len(right)}: give the same"
            )
    return list(zip(p, q, strict=True))


def labelled(predicted: Distributions, labels: Labels) -> list[tuple[Options, int]]:
    """The distribution and the label of each question, the label as the index of an option.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    p = normalised("predicted", predicted)
    if len(p) != len(labels):
        raise InputError(f"predicted has {len(p)} questions but there are {len(labels)} labels")
    for i, (distribution, label) in enumerate(zip(p, labels, strict=True)):
        # A negative label would silently count from the end.
        if not (isinstance(label, int | np.integer) and 0 <= label < len(distribution)):
            raise InputError(
                f"labels[{i}] is {label}: expected an option's index, 0 to {len(distribution) - 1}"
            )
    return [(distribution, int(label)) for distribution, label in zip(p, labels, strict=True)]


def finite(name: str, values: ArrayLike) -> Float[np.ndarray, " values"]:
    """The values as one row of numbers.

    Raises:
        InputError: there is none, they are no single row, or one is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} has shape {array.shape}: expected one number per answer")
    for i in np.flatnonzero(~np.isfinite(array)):
        raise InputError(f"{name}[{i}] is {array[i]}: expected a finite number")
    return array


def same_length(**columns: Sequence[object] | np.ndarray) -> None:
    """Check that each column has one entry per question.

    Raises:
        InputError: two columns differ in length; both are named.
    """
    (first, start), *others = columns.items()
    for name, column in others:
        if len(column) != len(start):
            raise InputError(
                f"{first} has {len(start)} entries and {name} {len(column)}: give one per question"
            )
