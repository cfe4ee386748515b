"""The readout that was fitted together with a direction: how its branch becomes an answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from saepd.common.checks import check_numbers
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.models.wording import ReadoutConfig


@dataclass(frozen=True, eq=False)
class FittedReadout:
    """Temperature and position biases that were fitted together with a direction.

    The answer of the direction's branch is ``p = softmax(F(s_0) own + s_v - s_0)``, and the base's
    is ``softmax(F(s_0) base)``. Here ``s_0`` and ``s_v`` are the options' scores in nats, of the
    base and of the branch that really runs at the direction's coefficient, and
    ``F = saepd.readout.softmax.option_features``: of each option its centred score, its position,
    and whether it is the last.

    Attributes:
        config: How options were read when it was fitted.
        base: Weights of the base: 1/temperature, a bias in nats for each position from the first
            option on, and the bias of the last option.
        own: Weights of the direction's branch, in the same form.

    Raises:
        InputError: weights that are not finite, fewer than three, or not equally many.
    """

    config: ReadoutConfig
    base: Float[np.ndarray, " weights"]
    own: Float[np.ndarray, " weights"]

    def __post_init__(self) -> None:
        if not isinstance(self.config, ReadoutConfig):
            raise InputError(
                f"a readout's config is {shortened(self.config)}: give a ReadoutConfig"
            )
        for name in ("base", "own"):
            object.__setattr__(self, name, _weights(name, getattr(self, name)))
        if len(self.base) != len(self.own):
            raise InputError(
                f"a readout has {len(self.base)} weights of the base but {len(self.own)} of the "
                "direction: give as many of both"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FittedReadout) and self.as_json() == other.as_json()

    def __hash__(self) -> int:
        return hash((self.config, self.base.tobytes(), self.own.tobytes()))

    @property
    def n_positions(self) -> int:
        """How many positions of options have a bias of their own."""
        return len(self.base) - 2

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "config": asdict(self.config),
            "base": self.base.tolist(),
            "own": self.own.tolist(),
        }

    @classmethod
    def from_json(cls, value: Any) -> FittedReadout:
        """What `as_json` gave.

        Raises:
            InputError: something else.
        """
        if not isinstance(value, dict) or value.keys() != {"config", "base", "own"}:
            raise InputError("a readout needs config, base and own, and nothing else")
        config, default = value["config"], asdict(ReadoutConfig())
        if (
            not isinstance(config, dict)
            or config.keys() != {one.name for one in fields(ReadoutConfig)}
            or any(type(config[name]) is not type(expected) for name, expected in default.items())
        ):
            raise InputError(f"a readout's config is {shortened(config)}: it is no ReadoutConfig")
        for name in ("base", "own"):
            check_numbers(f"a readout's {name}", value[name])
        return cls(ReadoutConfig(**config), value["base"], value["own"])


def _weights(name: str, numbers: Any) -> Float[np.ndarray, " weights"]:
    try:
        weights = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"a readout's weights {name!r} are no list of numbers: {error}") from error
    if weights.ndim != 1 or len(weights) < 3 or not np.isfinite(weights).all():
        raise InputError(
            f"a readout's weights {name!r} are {shortened(numbers)}: give at least three finite "
            "numbers, 1/temperature, the biases of positions, and the bias of the last option"
        )
    weights.setflags(write=False)
    return weights
