"""Values as JSON can hold them."""

from __future__ import annotations

import math


def finite(value: float) -> float | None:
    """A number, or None in the place of NaN and infinity, which JSON does not know."""
    return float(value) if math.isfinite(value) else None
