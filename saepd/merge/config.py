"""Which merge, and the numbers it takes."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened

OPERATOR_NAMES = (
    "pluralistic",
    "mixture",
    "product",
    "cad",
    "dcd",
    "weighted",
    "saepd-released",
)
READINGS = ("magnitude-sized", "magnitude", "softmax")
# How far a sum of probabilities may be from 1.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MergeConfig:
    """Which operator, and the numbers it takes.

    Attributes:
        operator: A name in `OPERATOR_NAMES`.
        alpha: Strength, 0 or more; read by pluralistic, cad, saepd-released (default there: 0.2).
        tau: Plausibility, a ratio of probabilities in (0, 1]; read by pluralistic.
        reading: What step two of pluralistic means, a name in ``READINGS``.
        weights: One per branch, the base first, 0 or more, summing to 1; weighted needs them and
            every other operator refuses them.

    Raises:
        InputError: a name is unknown or a number is out of range.
    """

    operator: str = "pluralistic"
    alpha: float = 1.0
    tau: float = 0.1
    reading: str = "magnitude-sized"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_name("merge operator", self.operator, OPERATOR_NAMES)
        _check_name("reading", self.reading, READINGS)
        if not 0 <= self.alpha < math.inf:
            raise InputError(f"alpha is {self.alpha}: it must be finite and not negative")
        if not 0 < self.tau <= 1:
            raise InputError(f"tau is {self.tau}: it is a ratio of probabilities, in (0, 1]")
        if bool(self.weights) != (self.operator == "weighted"):
            wanted = "takes no weights" if self.weights else "needs weights"
            raise InputError(f"the merge operator {self.operator!r} {wanted}")
        if self.weights and not (
            min(self.weights, default=-1) >= 0 and abs(sum(self.weights) - 1) <= SUM_TOLERANCE
        ):
            raise InputError(f"weights are {self.weights}: none may be negative, the sum must be 1")


def _check_name(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise InputError(f"unknown {kind} {shortened(name)}: {nearest(name, known, len(known))}")
