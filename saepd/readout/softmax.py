"""Penalised softmax regression over the options of questions: the one fit behind every readout.

Options are scored by a linear function of their features; a softmax over a question's options makes
the answer. The loss is convex, so there is one solution, and nothing depends on a starting point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from saepd.common.errors import InputError

OptionFeatures = Float[np.ndarray, "options features"]
OptionValues = Float[np.ndarray, " options"]
SoftmaxWeights = Float[np.ndarray, " features"]

_MAX_STEPS = 300
# Mean change of a weight below which a step is the last.
_ENOUGH = 1e-8


def fit_softmax(
    features: Sequence[OptionFeatures],
    targets: Sequence[OptionValues],
    penalty: SoftmaxWeights,
    *,
    offsets: Sequence[OptionValues] | None = None,
    start: SoftmaxWeights | None = None,
) -> SoftmaxWeights:
    """Weights that make the targets most probable, less a ridge penalty.

    Minimises sum_i CE(t_i, softmax(F_i w + o_i)) / n + sum_j penalty_j (w_j - start_j)^2 / 2, where
    n is how often all questions were answered together, by Newton's method with
    conjugate gradients.

    Args:
        features: F_i of each question.
        targets: t_i of each question, a distribution over its options; or several people's added
            up, who are then asked once.
        penalty: In nats per answer and squared unit of each weight; 0 leaves one free.
        offsets: o_i, nats, added to every question's scores; none if None.
        start: What the penalty draws the weights to; 0 if None.

    Raises:
        InputError: there are no questions.
    """
    if not features:
        raise InputError("there is no feedback to fit on: give at least one row")
    sizes = [len(t) for t in targets]
    stacked, wanted = np.concatenate(features), np.concatenate(targets)
    added = np.zeros(len(wanted)) if offsets is None else np.concatenate(offsets)
    begins = np.cumsum([0, *sizes[:-1]])
    question = np.repeat(np.arange(len(sizes)), sizes)
    answered = np.add.reduceat(wanted, begins)[question]
    n_answers = wanted.sum()
    centre = np.zeros(stacked.shape[1]) if start is None else start

    def log_softmax(weights: SoftmaxWeights) -> OptionValues:
        scores = stacked @ weights + added
        scores = scores - np.maximum.reduceat(scores, begins)[question]
        return scores - np.log(np.add.reduceat(np.exp(scores), begins))[question]

    def loss(weights: SoftmaxWeights) -> tuple[float, SoftmaxWeights]:
        log_probs, away = log_softmax(weights), weights - centre
        value = -(wanted @ log_probs) / n_answers + (penalty * away) @ away / 2
        slope = stacked.T @ (answered * np.exp(log_probs) - wanted) / n_answers + penalty * away
        return float(value), slope

    def curve(weights: SoftmaxWeights, along: SoftmaxWeights) -> SoftmaxWeights:
        probs, moved = np.exp(log_softmax(weights)), stacked @ along
        from_mean = moved - np.add.reduceat(probs * moved, begins)[question]
        return stacked.T @ (answered * probs * from_mean) / n_answers + penalty * along

    optimum = minimize(
        loss,
        centre.copy(),
        jac=True,
        hessp=curve,
        # L-BFGS needs more steps, and loses much time where two libraries' threads wait in turns.
        method="Newton-CG",
        options={"maxiter": _MAX_STEPS, "xtol": _ENOUGH},
    )
    return optimum.x


def option_features(
    scores: OptionValues, n_positions: int
) -> Float[np.ndarray, "options features"]:
    """Of each option: its centred score, which position it has, and whether it is the last."""
    n = len(scores)
    last = np.eye(n)[:, -1:]
    return np.hstack([(scores - scores.mean())[:, None], np.eye(n, n_positions), last])
