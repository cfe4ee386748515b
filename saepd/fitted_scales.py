"""Scales learned from feedback: how much of each latent every perspective's direction writes.

What one unit of a latent does to each option of a question is, to first order, the product of the
option's gradient with the latent's decoder row (`saepd.gradients`). So fitting scales is a
penalised softmax regression of the answers on these effects: convex, and it takes seconds. The
scales have a part that all perspectives share, which everybody's feedback decides, and a part of
each perspective's own. Temperature and position biases are fitted with them, so that scales are
not spent on what needs no steering. How many latents, and both penalties, are chosen by
cross-validation over the feedback's questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from saepd.errors import InputError
from saepd.softmax_fit import Options, Weights, fit_softmax, softmax

Effects = Float[np.ndarray, "options units"]
Readout = Float[np.ndarray, "options readout"]


@dataclass(frozen=True)
class ScaleConfig:
    """What is tried.

    Attributes:
        n_latents: Numbers of latents, those with the strongest first-order effect on the loss.
        shared: Ridge penalties of the shared part; a question's effects are scaled so that their
            mean square over the chosen units sums to 1.
        own: Ridge penalties of each perspective's own part.
        readout: Ridge penalties of the shared biases, and of each perspective's own readout.
        n_folds: Of the cross-validation over questions.
    """

    n_latents: tuple[int, ...] = (32, 128, 512)
    shared: tuple[float, ...] = (0.001, 0.004, 0.016)
    own: tuple[float, ...] = (0.005, 0.02, 0.08)
    readout: tuple[float, float] = (0.01, 0.1)
    n_folds: int = 5


@dataclass(frozen=True)
class Row:
    """One row of feedback, as the fit sees it.

    Attributes:
        question: Rows of one question stay on one side in cross-validation.
        perspective: Whose.
        readout: Features of the unsteered readout (score, positions).
        effects: What one unit of each candidate does to each option, nats.
        target: The answer, as a distribution.
    """

    question: str
    perspective: str
    readout: Readout
    effects: Effects
    target: Options


@dataclass(frozen=True)
class FittedScales:
    """What was learned.

    Attributes:
        units: Ids of the chosen candidates.
        values: Perspective -> scale of each, in the candidates' units.
        readout: Perspective -> weights of the unsteered readout.
        loss: Cross-validated loss of each setting that was tried, nats.
    """

    units: Int[np.ndarray, " k"]
    values: Mapping[str, Weights]
    readout: Mapping[str, Weights]
    loss: Mapping[str, float]


def fit_scales(rows: Sequence[Row], config: ScaleConfig | None = None) -> FittedScales:
    """Learn shared and own scales of some candidates from feedback.

    Raises:
        InputError: fewer questions than folds.
    """
    config = config or ScaleConfig()
    folds = _folds(rows, config.n_folds)
    losses: dict[tuple[int, float], float] = {}
    n_units = rows[0].effects.shape[1]
    for k in dict.fromkeys(min(n, n_units) for n in config.n_latents):
        for penalty in config.shared:
            losses[k, penalty] = _validated(rows, folds, k, penalty, None, config)
    k, shared = min(losses, key=lambda key: losses[key])
    own_losses = {own: _validated(rows, folds, k, shared, own, config) for own in config.own}
    own = min(own_losses, key=lambda key: own_losses[key])
    units, values, readout = _fit(rows, k, shared, own, config)
    tried = {f"k={n}, shared={s}": loss for (n, s), loss in losses.items()}
    tried |= {f"k={k}, shared={shared}, own={o}": loss for o, loss in own_losses.items()}
    return FittedScales(units, values, readout, tried)


def _fit(
    rows: Sequence[Row], k: int, shared: float, own: float | None, config: ScaleConfig
) -> tuple[Int[np.ndarray, " k"], dict[str, Weights], dict[str, Weights]]:
    """Chosen units, and each perspective's scales and readout; only shared ones if own is None."""
    n_readout = rows[0].readout.shape[1]
    biases = np.full(n_readout, config.readout[0])
    # The inverse temperature is free.
    biases[0] = 0.0
    unsteered = fit_softmax([r.readout for r in rows], [r.target for r in rows], biases)
    units = strongest(rows, unsteered, k)
    size = np.sqrt(np.mean([np.square(r.effects[:, units]).sum(1).mean() for r in rows]))
    features = [np.hstack([r.readout, r.effects[:, units] / size]) for r in rows]
    weights = fit_softmax(
        features,
        [r.target for r in rows],
        np.concatenate([biases, np.full(len(units), shared)]),
    )
    penalty = np.concatenate([np.full(n_readout, config.readout[1]), np.full(len(units), own or 0)])
    values, readout = {}, {}
    for name in dict.fromkeys(row.perspective for row in rows):
        found = weights
        if own is not None:
            mine = [i for i, row in enumerate(rows) if row.perspective == name]
            found = fit_softmax(
                [features[i] for i in mine], [rows[i].target for i in mine], penalty, start=weights
            )
        readout[name], values[name] = found[:n_readout], found[n_readout:] / size
    return units, values, readout


def strongest(rows: Sequence[Row], unsteered: Weights, k: int) -> Int[np.ndarray, " k"]:
    """The units whose score tests against the unsteered readout are largest (Rao 1948).

    The statistic of a unit is the sum over perspectives of
    (sum_i (t_i - p_i) e_i)^2 / sum_i Var_{p_i}[e_i], so that what moves perspectives apart counts
    as much as what moves them together.
    """
    n_units = rows[0].effects.shape[1]
    if k >= n_units:
        return np.arange(n_units)
    statistic = np.zeros(n_units)
    for name in dict.fromkeys(row.perspective for row in rows):
        slope, variance = np.zeros(n_units), np.full(n_units, 1e-12)
        for row in rows:
            if row.perspective == name:
                p = softmax(row.readout @ unsteered)
                slope += (row.target - p) @ row.effects
                variance += p @ np.square(row.effects) - np.square(p @ row.effects)
        statistic += np.square(slope) / variance
    return np.argsort(-statistic, kind="stable")[:k]


def _validated(
    rows: Sequence[Row],
    folds: Sequence[set[str]],
    k: int,
    shared: float,
    own: float | None,
    config: ScaleConfig,
) -> float:
    """Mean loss of a setting on questions it was not fitted on, nats."""
    losses = []
    for held_out in folds:
        seen = [row for row in rows if row.question not in held_out]
        units, values, readout = _fit(seen, k, shared, own, config)
        for row in rows:
            if row.question in held_out and row.perspective in values:
                scores = row.readout @ readout[row.perspective]
                p = softmax(scores + row.effects[:, units] @ values[row.perspective])
                losses.append(-float(row.target @ np.log(np.maximum(p, 1e-12))))
    return float(np.mean(losses))


def _folds(rows: Sequence[Row], n_folds: int) -> list[set[str]]:
    questions = sorted({row.question for row in rows})
    if len(questions) < n_folds:
        raise InputError(
            f"{len(questions)} questions of feedback are too few for {n_folds} folds: give more"
        )
    return [set(questions[start::n_folds]) for start in range(n_folds)]
