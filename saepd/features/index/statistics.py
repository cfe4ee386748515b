"""How strongly, how often and where in a passage each latent fires."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Shares of a latent's firings below each of its quantiles.
QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
N_BINS = 16
# Tokens of a passage before each of the places: the first, the second, two more, four more ...
PLACES = (0, 1, 2, 4, 8, 16, 32, 64, 128)


class LatentStatistics(NamedTuple):
    """What is counted of one latent.

    Attributes:
        quantiles: Activations at `QUANTILES`, in SAE activation units; zeros if it never fires.
        histogram: Firings in equally wide bins between zero and the largest activation.
        places: Firings at each of `PLACES`.
    """

    quantiles: Float[np.ndarray, " quantiles"]
    histogram: Int[np.ndarray, " bins"]
    places: Int[np.ndarray, " places"]


def statistics(
    values: Float[np.ndarray, " firings"], depths: Int[np.ndarray, " firings"]
) -> LatentStatistics:
    """Count one latent's firings.

    Args:
        values: Activations, in SAE activation units.
        depths: How many tokens of its passage are before each firing.
    """
    if len(values) == 0:
        return LatentStatistics(
            np.zeros(len(QUANTILES), dtype=np.float32),
            np.zeros(N_BINS, dtype=np.uint32),
            np.zeros(len(PLACES), dtype=np.uint32),
        )
    histogram, _ = np.histogram(values, bins=N_BINS, range=(0.0, float(values.max())))
    return LatentStatistics(
        np.quantile(values, QUANTILES).astype(np.float32),
        histogram.astype(np.uint32),
        places(depths).astype(np.uint32),
    )


def places(depths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " places"]:
    """How many depths are at each of `PLACES`."""
    return np.bincount(np.searchsorted(PLACES, depths, side="right") - 1, minlength=len(PLACES))
