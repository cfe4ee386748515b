"""Fits averaged over penalties, where few answers cannot tell which penalty is best.

The penalty that foretells fifty answers best is often the one that luck favours. So no penalty is
chosen: every one counts by how likely it makes the answers that its fit has not seen. Log-odds are
linear in what is fitted, so the average of the fits is a fit of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from saepd.fit.penalised import Part
from saepd.fit.validate import Losses


def likelihood_weights(held_out: Sequence[Losses]) -> Float[np.ndarray, " fits"]:
    """How much each fit counts: in proportion to the likelihood of answers that it has not seen.

    These are the pseudo-BMA weights of Yao, Vehtari, Simpson and Gelman ("Using stacking to
    average Bayesian predictive distributions", Bayesian Analysis 13, 2018), with the folds'
    log-likelihoods in the place of leave-one-out's.

    Args:
        held_out: For each fit, the loss of each answer, its question not seen, in nats.

    Returns:
        Weights that add up to 1.
    """
    log_likelihoods = -np.nansum(held_out, axis=1)
    weights = np.exp(log_likelihoods - log_likelihoods.max())
    return weights / weights.sum()


def average(
    fits: Sequence[Mapping[str, Part]], weights: Float[np.ndarray, " fits"]
) -> dict[str, Part]:
    """The weighted mean of fits to the same answers, for each perspective."""
    return {
        name: Part(
            weights @ np.stack([fit[name].readout for fit in fits]),
            weights @ np.stack([fit[name].values for fit in fits]),
        )
        for name in fits[0]
    }
