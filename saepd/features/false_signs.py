"""Local false-sign rates: how likely an effect has not the sign that was estimated.

Adaptive shrinkage (Stephens 2017, "False discovery rates: a new deal", Biostatistics 18): the true
effects are taken to come from a mixture of normals around zero, a point at zero among them, whose
weights all latents together tell by EM. What is left for each latent is its posterior, and the
mass of it that is not on the estimated side of zero is its local false-sign rate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp
from scipy.stats import norm

# The prior on the weights favours no effect: as if so many latents without one had been seen
# beside (Stephens 2017, section 2.3; the default of the ashr package).
_NULLS_SEEN = 10.0
_STEP = 2**0.5
_MOST_ROUNDS = 500
_TOLERANCE = 1e-6


class Shrunk(NamedTuple):
    """Effects after adaptive shrinkage.

    Attributes:
        false_sign_rate: Chance that each effect is zero or has the other sign.
        mean: Posterior mean of each effect, in the unit of the estimates.
        share_of_none: Share of the effects that are zero.
    """

    false_sign_rate: Float[np.ndarray, " effects"]
    mean: Float[np.ndarray, " effects"]
    share_of_none: float


def shrink(
    estimates: Float[np.ndarray, " effects"], errors: Float[np.ndarray, " effects"]
) -> Shrunk:
    """Shrink estimates by what all of them say of how large effects are.

    Args:
        estimates: Estimate of each effect.
        errors: Standard error of each estimate, positive; the estimates are taken to be normal.
    """
    estimates, errors = np.asarray(estimates, float), np.asarray(errors, float)
    spreads = _spreads(estimates, errors)
    total = np.hypot(spreads, errors[:, None])
    log_likelihood = norm.logpdf(estimates[:, None], scale=total)
    log_weights = np.log(_weights(log_likelihood))
    log_mass = log_weights + log_likelihood
    mass = np.exp(log_mass - logsumexp(log_mass, axis=1, keepdims=True))
    # Each component's posterior is normal; that of the point at zero is the point.
    ratio = (spreads / total) ** 2
    means = ratio * estimates[:, None]
    deviations = np.sqrt(ratio) * errors[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(spreads > 0, norm.cdf(-means / deviations), 0.0)
    negative = (mass * below).sum(1)
    positive = (mass[:, 1:] * (1 - below[:, 1:])).sum(1)
    return Shrunk(
        false_sign_rate=np.clip(1 - np.maximum(negative, positive), 0.0, 1.0),
        mean=(mass * means).sum(1),
        share_of_none=float(np.exp(log_weights[0])),
    )


def _spreads(
    estimates: Float[np.ndarray, " effects"], errors: Float[np.ndarray, " effects"]
) -> Float[np.ndarray, " components"]:
    """Zero, then standard deviations from far below the errors to beyond any effect."""
    smallest = float(errors.min()) / 10
    beyond = float(np.maximum(estimates**2 - errors**2, 0).max())
    largest = 2 * beyond**0.5 if beyond > 0 else 8 * smallest
    n_steps = int(np.ceil(np.log(max(largest / smallest, _STEP)) / np.log(_STEP)))
    return np.concatenate([[0.0], largest / _STEP ** np.arange(n_steps + 1)[::-1]])


def _weights(
    log_likelihood: Float[np.ndarray, "effects components"],
) -> Float[np.ndarray, " components"]:
    """Weights of the mixture that are likeliest, by EM with a prior on no effect."""
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    n_effects, n_components = likelihood.shape
    seen = np.zeros(n_components)
    seen[0] = _NULLS_SEEN - 1
    # Spreads far below the errors cannot be told from none. EM keeps the ratio of such weights as
    # it was at the start: there it speaks for none, so that nothing is sure for being unclear.
    weights = np.full(n_components, 0.1 / (n_components - 1))
    weights[0] = 0.9
    for _ in range(_MOST_ROUNDS):
        mass = likelihood * weights
        updated = (mass / mass.sum(1, keepdims=True)).sum(0) + seen
        updated /= n_effects + seen.sum()
        moved = np.abs(updated - weights).max()
        weights = updated
        if moved < _TOLERANCE:
            break
    return np.maximum(weights, 1e-300)
