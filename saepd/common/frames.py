"""Rows as a pandas frame, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def as_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row of the frame for each, one column for each of their names.

    Raises:
        InputError: pandas is missing.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError("pandas is not installed: pip install 'saepd[explore]'") from error
    return pd.DataFrame([dict(row) for row in rows])
