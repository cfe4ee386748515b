"""Values as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: float) -> float | None:
    """A number, or None in the place of NaN and infinity, which JSON does not know."""
    return float(value) if math.isfinite(value) else None


def as_json(value: Any) -> Any:
    """A value of any depth as JSON can hold it: what it has no form for becomes its text."""
    if value is None or isinstance(value, str | int):
        return value
    if hasattr(value, "tolist"):
        # An array, a tensor, or one number of these.
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(inner) for inner in value]
    if isinstance(value, float):
        return finite(value)
    return str(value)
