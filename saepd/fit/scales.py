"""Scales learned from feedback: how much of each latent every perspective's direction writes.

What one unit of a latent does to each option of a question is, to first order, the product of the
option's gradient with the latent's decoder row (`saepd.branches.gradients`). So fitting scales is a
penalised softmax regression of the answers on these effects: convex, and it takes seconds. The
scales have a part that all perspectives share, which everybody's feedback decides, and a part of
each perspective's own. Temperature and position biases are fitted with them, so that scales are
not spent on what needs no steering. How many latents, and both penalties, are chosen by
cross-validation over the feedback's questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from saepd.common.errors import InputError
from saepd.fit.config import ScaleConfig
from saepd.readout.softmax import OptionValues, SoftmaxWeights, fit_softmax

Effects = Float[np.ndarray, "options units"]
Readout = Float[np.ndarray, "options readout"]


@dataclass(frozen=True)
class Row:
    """One row of feedback, as the fit sees it.

    Attributes:
        question: Rows of one question have the same readout and effects, and stay on one side in
            cross-validation.
        perspective: Whose.
        readout: OptionFeatures of the unsteered readout (score, positions).
        effects: What one unit of each candidate does to each option, nats.
        target: The answer, as a distribution.
    """

    question: str
    perspective: str
    readout: Readout
    effects: Effects
    target: OptionValues


# Rows that are seen, and rows that are held out.
_Side: TypeAlias = tuple[list[Row], list[Row]]


@dataclass(frozen=True)
class FittedScales:
    """What was learned.

    Attributes:
        units: Ids of the chosen candidates.
        values: Perspective -> scale of each, in the candidates' units.
        readout: Perspective -> weights of the unsteered readout.
        loss: Cross-validated loss of each setting that was tried, nats.
        base: Weights of the readout without steering, for everybody.
        unsteered: Cross-validated loss of the readout without steering, fitted alike, nats.
    """

    units: Int[np.ndarray, " k"]
    values: Mapping[str, SoftmaxWeights]
    readout: Mapping[str, SoftmaxWeights]
    loss: Mapping[str, float]
    base: SoftmaxWeights
    unsteered: float


def fit_scales(rows: Sequence[Row], config: ScaleConfig | None = None) -> FittedScales:
    """Learn shared and own scales of some candidates from feedback.

    Raises:
        InputError: fewer questions than folds.
    """
    config = config or ScaleConfig()
    n_units = rows[0].effects.shape[1]
    sizes = list(dict.fromkeys(min(n, n_units) for n in config.n_latents))
    sides = _sides(rows, config.n_folds)
    starts = [_start(seen, sizes, config) for seen, _ in sides]
    losses: dict[tuple[int, float], float] = {}
    best: list[_Shared] = []
    for k in sizes:
        for penalty in config.shared:
            fits = [_fit_shared(start, k, penalty) for start in starts]
            losses[k, penalty] = _validated(sides, [_everybodys(fit) for fit in fits])
            if losses[k, penalty] == min(losses.values()):
                best = fits
    k, shared = min(losses, key=lambda key: losses[key])
    own_losses = {
        own: _validated(sides, [_fit_own(fit, own, config) for fit in best]) for own in config.own
    }
    own = min(own_losses, key=lambda key: own_losses[key])
    start = _start(rows, [k], config)
    found = _fit_own(_fit_shared(start, k, shared), own, config)
    base = _fit_shared(start, 0, 0.0).weights
    tried = {f"k={n}, shared={s}": loss for (n, s), loss in losses.items()}
    tried |= {f"k={k}, shared={shared}, own={o}": loss for o, loss in own_losses.items()}
    alone = [_fit_own(_fit_shared(start, 0, 0.0), 0.0, config) for start in starts]
    unsteered = _validated(sides, alone)
    return FittedScales(found.units, found.values, found.readout, tried, base, unsteered)


class _Start(NamedTuple):
    """What fits to the same rows begin with: the penalty of the readout, and a ranking of units."""

    rows: Sequence[Row]
    biases: SoftmaxWeights
    ranked: Int[np.ndarray, " k"]


class _Shared(NamedTuple):
    """What everybody's feedback decides; a question's features are readout and scaled effects."""

    rows: Sequence[Row]
    units: Int[np.ndarray, " k"]
    size: float
    features: Mapping[str, np.ndarray]
    weights: SoftmaxWeights


class _Own(NamedTuple):
    units: Int[np.ndarray, " k"]
    values: dict[str, SoftmaxWeights]
    readout: dict[str, SoftmaxWeights]


def _start(rows: Sequence[Row], sizes: Sequence[int], config: ScaleConfig) -> _Start:
    n_units, n_readout = rows[0].effects.shape[1], rows[0].readout.shape[1]
    biases = np.full(n_readout, config.readout[0])
    # The inverse temperature is free.
    biases[0] = 0.0
    if min(sizes) == n_units:
        return _Start(rows, biases, np.arange(n_units))
    unsteered = fit_softmax([r.readout for r in rows], [r.target for r in rows], biases)
    return _Start(rows, biases, strongest(rows, unsteered))


def _fit_shared(start: _Start, k: int, penalty: float) -> _Shared:
    rows, units = start.rows, np.sort(start.ranked[:k])
    size = float(np.sqrt(np.mean([np.square(r.effects[:, units]).sum(1).mean() for r in rows])))
    questions = {row.question: row for row in rows}
    features = {
        question: np.hstack([row.readout, row.effects[:, units] / size])
        for question, row in questions.items()
    }
    totals = {question: np.zeros(len(row.target)) for question, row in questions.items()}
    for row in rows:
        totals[row.question] += row.target
    penalties = np.concatenate([start.biases, np.full(k, penalty)])
    weights = fit_softmax(list(features.values()), list(totals.values()), penalties)
    return _Shared(rows, units, size, features, weights)


def _everybodys(fit: _Shared) -> _Own:
    """The shared part alone, for every perspective."""
    return _split(fit, dict.fromkeys([row.perspective for row in fit.rows], fit.weights))


def _fit_own(fit: _Shared, own: float, config: ScaleConfig) -> _Own:
    n_readout = fit.rows[0].readout.shape[1]
    penalty = np.concatenate([np.full(n_readout, config.readout[1]), np.full(len(fit.units), own)])
    found: dict[str, SoftmaxWeights] = {}
    for name, mine in _by_perspective(fit.rows).items():
        found[name] = fit_softmax(
            [fit.features[row.question] for row in mine],
            [row.target for row in mine],
            penalty,
            start=fit.weights,
        )
    return _split(fit, found)


def _split(fit: _Shared, weights: Mapping[str, SoftmaxWeights]) -> _Own:
    n_readout = fit.rows[0].readout.shape[1]
    return _Own(
        fit.units,
        {name: found[n_readout:] / fit.size for name, found in weights.items()},
        {name: found[:n_readout] for name, found in weights.items()},
    )


def strongest(rows: Sequence[Row], unsteered: SoftmaxWeights) -> Int[np.ndarray, " units"]:
    """Units by their score tests against the unsteered readout, largest first (Rao 1948).

    The statistic of a unit is the sum over perspectives of
    (sum_i (t_i - p_i) e_i)^2 / sum_i Var_{p_i}[e_i], so that what moves perspectives apart counts
    as much as what moves them together.
    """
    n_units = rows[0].effects.shape[1]
    statistic = np.zeros(n_units)
    for mine in _by_perspective(rows).values():
        slope, variance = np.zeros(n_units), np.full(n_units, 1e-12)
        for row in mine:
            p = softmax(row.readout @ unsteered)
            slope += (row.target - p) @ row.effects
            variance += p @ np.square(row.effects) - np.square(p @ row.effects)
        statistic += np.square(slope) / variance
    return np.argsort(-statistic, kind="stable")


def _by_perspective(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Each perspective's rows, in one walk over all of them."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.perspective, []).append(row)
    return found


def _validated(sides: Sequence[_Side], fits: Sequence[_Own]) -> float:
    """Mean loss on questions that were not fitted on, nats."""
    losses = []
    for (_, held_out), fit in zip(sides, fits, strict=True):
        for row in held_out:
            if row.perspective in fit.values:
                scores = row.readout @ fit.readout[row.perspective]
                p = softmax(scores + row.effects[:, fit.units] @ fit.values[row.perspective])
                losses.append(-float(row.target @ np.log(np.maximum(p, 1e-12))))
    return float(np.mean(losses))


def _sides(rows: Sequence[Row], n_folds: int) -> list[_Side]:
    """Rows that are seen and rows that are held out, by whole questions."""
    questions = sorted({row.question for row in rows})
    if len(questions) < n_folds:
        raise InputError(
            f"{len(questions)} questions of feedback are too few for {n_folds} folds: give more"
        )
    parts = [set(questions[start::n_folds]) for start in range(n_folds)]
    return [
        (
            [row for row in rows if row.question not in part],
            [row for row in rows if row.question in part],
        )
        for part in parts
    ]
