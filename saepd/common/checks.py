"""Checks that configurations make of themselves, each ending in one sentence."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, TypeGuard

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened


def check_choice(what: str, value: object, known: Collection[str]) -> None:
    """Refuse a name that is none of the known ones.

    Raises:
        InputError: the name, and which there are.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(
            f"unknown {what} {shortened(value)}: {nearest(str(value), known, len(known))}"
        )


def check_number(
    what: str,
    value: object,
    *,
    above: float = -inf,
    at_least: float = -inf,
    at_most: float = inf,
    whole: bool = False,
) -> None:
    """Refuse what is no number, not finite, or out of range.

    Args:
        what: What the number is called, as it begins a sentence.
        value: What was given.
        above: The number must be larger than this.
        at_least: The number must not be smaller than this.
        at_most: The number must not be larger than this.
        whole: Only whole numbers will do.

    Raises:
        InputError: the number, and which would be right.
    """
    if not (_is_number(value, whole=whole) and above < value and at_least <= value <= at_most):
        kind = "a whole number" if whole else "a finite number"
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (("above", above), ("at least", at_least), ("at most", at_most))
            if isfinite(bound)
        ]
        wanted = " ".join([kind, " and ".join(bounds)]).strip()
        raise InputError(f"{what} is {shortened(value)}: it must be {wanted}")


def check_numbers(what: str, values: object, **bounds: Any) -> None:
    """Refuse what is no list of at least one number that `check_number` takes.

    Raises:
        InputError: what was given, and what would be right.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{what} is {shortened(values)}: it must be a list of at least one number")
    for value in values:
        check_number(f"a number of {what}", value, **bounds)


def check_path(what: str, value: object) -> None:
    """Refuse what is no path, before something is looked for there.

    Raises:
        InputError: the value, and what to give.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{shortened(value)} is no {what}: give its path")


def check_part(what: str, value: object, kind: type) -> None:
    """Refuse a part of a configuration that is not of its class.

    Raises:
        InputError: what was given, and the class.
    """
    if not isinstance(value, kind):
        raise InputError(f"{what} is {shortened(value)}: it must be of class {kind.__name__}")


def _is_number(value: object, *, whole: bool) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        return False
    try:
        return isfinite(value)
    except OverflowError:
        # A whole number beyond what a float holds.
        return False
