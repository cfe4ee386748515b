"""What a latent foretells of held-out questions: whose feedback a row is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from saepd.features.encode import Pairs
from saepd.metrics.intervals import Interval, draw_weights, interval
from saepd.metrics.weighted import mean

_N_FOLDS = 5


def held_out_gain(pairs: Pairs, perspective: str, latent: int, seed: int = 0) -> Interval | None:
    """How much better a latent foretells whose feedback a row is than the perspective's share.

    Five times a fifth of the questions is held out. A logistic regression on the latent alone, of
    the other questions' rows, gives the chance that each held-out row is the perspective's; the
    gain is the log-likelihood of whose it is, less that of the share of the perspective among the
    other rows. The latent was chosen on all rows, so the gain is a little too good.

    Args:
        pairs: The encoded feedback.
        perspective: Name of the perspective whose rows are told from all others.
        latent: The latent.
        seed: Seed of the bootstrap over questions.

    Returns:
        Nats a row, with a 95% interval over questions; None where there are no others, fewer than
        two questions, or a fold without either.
    """
    is_own = np.zeros(len(pairs.rows), dtype=bool)
    is_own[pairs.of(perspective).numpy()] = True
    questions = np.array([row.item for row in pairs.rows])
    n_folds = min(_N_FOLDS, len(set(questions.tolist())))
    if is_own.all() or n_folds < 2:
        return None
    values = pairs.positive_latents[:, latent].double().numpy()[:, None]
    gains = np.zeros(len(is_own))
    for rest, held in GroupKFold(n_folds).split(values, is_own, questions):
        if is_own[rest].all() or not is_own[rest].any():
            return None
        spread = float(values[rest].std()) or 1.0
        fitted = LogisticRegression().fit(values[rest] / spread, is_own[rest])
        foretold = fitted.predict_proba(values[held] / spread)[:, 1]
        gains[held] = _log_likelihood(foretold, is_own[held])
        gains[held] -= _log_likelihood(np.full(len(held), is_own[rest].mean()), is_own[held])
    return interval(mean(gains, draw_weights(questions.tolist(), seed)))


def _log_likelihood(
    shares: Float[np.ndarray, " n"], is_own: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    return np.log(np.where(is_own, shares, 1 - shares))
