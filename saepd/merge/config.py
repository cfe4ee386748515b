"""Which merge, and the numbers it takes."""

from __future__ import annotations

from dataclasses import dataclass

from saepd.common.checks import check_choice, check_number, check_numbers
from saepd.common.errors import InputError

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
PROBABILITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MergeConfig:
    """Which operator, and the numbers it takes.

    Attributes:
        operator: Name of the merge: pluralistic, mixture, product, cad, dcd, weighted or
            saepd-released.
        alpha: Strength of the merges pluralistic, cad and saepd-released (whose authors' default
            is 0.2); 0 or more.
        tau: Plausibility limit of the merge pluralistic: the ratio, in (0, 1], of a token's
            probability to the best token's.
        reading: What the second step of the merge pluralistic means: magnitude-sized, magnitude
            or softmax.
        weights: Weights of the merge weighted, one for each branch, the base first; 0 or more,
            summing to 1.

    Raises:
        InputError: a name is unknown or a number is out of range.
    """

    operator: str = "pluralistic"
    alpha: float = 1.0
    tau: float = 0.1
    reading: str = "magnitude-sized"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("merge operator", self.operator, OPERATOR_NAMES)
        check_choice("reading", self.reading, READINGS)
        check_number("alpha", self.alpha, at_least=0)
        check_number("tau", self.tau, above=0, at_most=1)
        if bool(self.weights) != (self.operator == "weighted"):
            wanted = "takes no weights" if self.weights else "needs weights"
            raise InputError(f"the merge operator {self.operator!r} {wanted}")
        if self.weights:
            check_numbers("weights", self.weights, at_least=0)
            if abs(sum(self.weights) - 1) > PROBABILITY_TOLERANCE:
                raise InputError(f"weights are {self.weights}: their sum must be 1")
