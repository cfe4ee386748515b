"""The values that a parameter may take, in the words of W&B's sweep format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.sweeps.space.parameters import check_name, checked_value, parameter_types

_KEYS = ("value", "values", "distribution", "min", "max", "q")
_LISTED = ("constant", "categorical")
_INTEGER = ("int_uniform",)
# With log_uniform, W&B's bounds are exponents of e; with log_uniform_values, the values themselves.
_CONTINUOUS = (
    *("uniform", "q_uniform", "log_uniform", "q_log_uniform"),
    *("log_uniform_values", "q_log_uniform_values"),
)
# Beyond these, numbers are too coarse for what is drawn from a range.
_FARTHEST = 1e15
_LARGEST_EXPONENT = math.log(_FARTHEST)
_MOST_STEPS = 1e12
DISTRIBUTIONS = (*_LISTED, *_INTEGER, *_CONTINUOUS)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def sample(self, rng: np.random.Generator) -> Any:
        """Any of them, each as likely."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Range:
    """A number between two others.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether the logarithm is even, rather than the number.
        step: The number is a multiple of this; 0 for any.
        integer: Whether it is a whole number.
    """

    low: float
    high: float
    log: bool = False
    step: float = 0.0
    integer: bool = False

    def sample(self, rng: np.random.Generator) -> float | int:
        """One number."""
        if self.integer and not self.log and not self.step:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        if self.log:
            return self.rounded(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return self.rounded(rng.uniform(self.low, self.high))

    def rounded(self, value: float) -> float | int:
        """The nearest number that is allowed."""
        if self.step:
            value = round(value / self.step) * self.step
            # Multiples of 0.1 are to read as 0.3, not as 0.30000000000000004.
            value = float(f"{value:.12g}")
        # Rounding must not leave the range: the nearest multiple may lie beyond an end.
        while self.step and value < self.low:
            value = float(f"{value + self.step:.12g}")
        while self.step and value > self.high:
            value = float(f"{value - self.step:.12g}")
        return round(value) if self.integer else float(value)


Space = Choice | Range


def parse_parameter(name: str, entry: Any) -> Space:
    """What W&B's entry for one parameter allows.

    ``value``, ``values``, or ``min`` and ``max`` with a ``distribution`` (even over whole numbers
    if both ends are whole, over all numbers if not, unless it is given) and ``q``, the step of
    distributions that start with q_.

    Raises:
        InputError: an unknown parameter, keys that do not go together, no values, a value of
            another type, min above max, or a distribution that is not supported.
    """
    check_name(name)
    where = f"parameter {name}"
    if not isinstance(entry, Mapping) or not entry:
        raise InputError(f"{where} is {shortened(entry)}: write value, values, or min and max")
    for key in entry:
        if key == "parameters":
            raise InputError(
                f"{where} is nested: saepd's parameters have no groups, write them flat"
            )
        if key == "probabilities":
            raise InputError(f"{where} has probabilities: every value is as likely here, drop them")
        if key not in _KEYS:
            raise InputError(f"{where} has a key {shortened(key)}: {nearest(str(key), _KEYS)}")
    kind = entry.get("distribution")
    if kind is not None and kind not in DISTRIBUTIONS:
        raise InputError(
            f"{where} has the distribution {shortened(kind)}, which saepd does not know: "
            + nearest(str(kind), DISTRIBUTIONS, 99)
        )
    given = [
        key
        for key in ("value", "values", "min")
        if key in entry or (key == "min" and "max" in entry)
    ]
    if len(given) != 1:
        raise InputError(
            f"{where} has {' and '.join(given) or 'no values'}: give value, values, or min and max"
        )
    if given[0] != "min":
        if {"min", "max", "q"} & set(entry) or kind not in (None, *_LISTED):
            raise InputError(f"{where} has {given[0]} and a range: give one of them")
        return _choice(name, entry, given[0])
    return _range(name, entry, kind)


def _choice(name: str, entry: Mapping[str, Any], key: str) -> Choice:
    values = [entry["value"]] if key == "value" else entry["values"]
    if not isinstance(values, list) or not values:
        shown = "null" if values is None else shortened(values)
        raise InputError(
            f"parameter {name}: values is {shown}: the grid is empty; list one or more"
        )
    checked: dict[Any, None] = {}
    for value in (checked_value(name, value) for value in values):
        if value in checked:
            raise InputError(f"parameter {name} lists {shortened(value)} twice: list it once")
        checked[value] = None
    return Choice(tuple(checked))


def _range(name: str, entry: Mapping[str, Any], kind: str | None) -> Range:
    where = f"parameter {name}"
    if kind in _LISTED:
        raise InputError(f"{where}: the distribution {kind} needs values, not min and max")
    ends: list[float] = []
    for end in ("min", "max"):
        value = entry.get(end)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not -_FARTHEST <= value <= _FARTHEST
        ):
            shown = shortened(value) if end in entry else "missing"
            raise InputError(
                f"{where}: {end} is {shown}: it must be a number, up to {_FARTHEST:.0e} in size"
            )
        ends.append(value)
    low, high = ends
    if low > high:
        raise InputError(f"{where}: min {low} is above max {high}: swap them")
    integers = parameter_types()[name] in (int, int | None)
    kind = kind or ("int_uniform" if all(isinstance(end, int) for end in ends) else "uniform")
    step = entry.get("q", 1.0 if kind.startswith("q_") else 0.0)
    if ("q" in entry) != kind.startswith("q_") and "q" in entry:
        raise InputError(f"{where}: q goes with q_uniform and the like, not with {kind}")
    if (
        isinstance(step, bool)
        or not isinstance(step, int | float)
        or not 0 <= step <= _FARTHEST
        or (kind.startswith("q_") and step == 0)
    ):
        raise InputError(f"{where}: q is {shortened(step)}: it must be a positive number")
    if kind in ("log_uniform", "q_log_uniform"):
        if low > 0 or high > _LARGEST_EXPONENT:
            raise InputError(
                f"{where}: min {low} and max {high} of {kind} are exponents in W&B's format, so "
                f"the range would be e^{low} to e^{high}: use {kind}_values and give the values "
                "themselves"
            )
        low, high = math.exp(low), math.exp(high)
    if step and max(abs(low), abs(high)) > _MOST_STEPS * step:
        raise InputError(
            f"{where}: q is {step}, far too small beside {low} and {high}: use a larger step"
        )
    if kind.startswith(("log_", "q_log_")) and low <= 0:
        raise InputError(f"{where}: min is {low}: a logarithmic range starts above 0")
    if kind == "int_uniform" and not all(float(end).is_integer() for end in ends):
        raise InputError(f"{where}: min and max must be whole numbers with int_uniform")
    if integers and kind != "int_uniform" and not (step and float(step).is_integer()):
        raise InputError(f"{where} is a whole number: use int_uniform, or q_uniform with a whole q")
    space = Range(low, high, "log" in kind, float(step), integers or kind == "int_uniform")
    if step and not low <= space.rounded(low) <= high:
        raise InputError(f"{where}: no multiple of {step} lies between {low} and {high}")
    for end in {space.rounded(low), space.rounded(high)}:
        checked_value(name, end)
    return space
