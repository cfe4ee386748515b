"""The penalised softmax regression behind learned directions: answers on what vectors do.

An option's log-odds are a readout of the base's scores plus what the perspective's vector does to
them, linear in the vector around some other one. Readout and vector have a part that all
perspectives share, which everybody's answers decide, and a part of each perspective's own, which is
drawn to the shared one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from saepd.readout.softmax import OptionValues, SoftmaxWeights, fit_softmax

Values: TypeAlias = Float[np.ndarray, " units"]


@dataclass(frozen=True)
class Row:
    """One answer, and what moves the options of its question.

    Attributes:
        question: Rows of one question with one array of effects have all features in common.
        perspective: Who answered.
        readout: Features of the unsteered readout; see `option_features`.
        effects: Nats by which one unit of each candidate moves each option.
        offset: Nats that each option is moved by besides; ``moved - effects @ at`` where effects
            are those of a little more than some values ``at``.
        target: The answer, as a distribution.
    """

    question: str
    perspective: str
    readout: Float[np.ndarray, "options readout"]
    effects: Float[np.ndarray, "options units"]
    offset: OptionValues
    target: OptionValues


@dataclass(frozen=True)
class Ridge:
    """Penalties, in nats of an answer's mean loss per squared unit.

    Attributes:
        shared: Penalty on the shared part of the values, whose unit moves a question's options by
            one nat, root of the mean square sum over the candidates.
        own: Penalty on how each perspective's values differ from the shared ones, in the unit of
            ``shared``; None where they do not differ.
        biases: Penalty on the shared position biases, in nats; the shared temperature is free.
        own_readout: Penalty on how each perspective's readout differs from the shared one.
    """

    shared: float = 1.0
    own: float | None = None
    biases: float = 0.01
    own_readout: float = 0.1


class Part(NamedTuple):
    """A readout, and values of the candidates.

    Attributes:
        readout: 1/temperature, and biases in nats.
        values: How much of each candidate is written.
    """

    readout: SoftmaxWeights
    values: Values


def in_units(rows: Sequence[Row], units: Float[np.ndarray, "candidates units"]) -> list[Row]:
    """The same rows on combinations of their candidates."""
    effects: dict[int, Float[np.ndarray, "options units"]] = {}
    for row in rows:
        if id(row.effects) not in effects:
            effects[id(row.effects)] = row.effects @ units.T
    return [replace(row, effects=effects[id(row.effects)]) for row in rows]


def written(rows: Sequence[Row], values: Values | None = None) -> list[Row]:
    """The same rows once some values are written; no candidates are left."""
    moved = rows
    if values is not None:
        moved = [replace(row, offset=row.offset + row.effects @ values) for row in rows]
    return in_units(moved, np.zeros((0, rows[0].effects.shape[1])))


def effect_size(rows: Sequence[Row]) -> float:
    """Root mean square, over rows and their options, of what all candidates' units do, in nats."""
    return float(np.sqrt(np.mean([np.square(r.effects).sum(1).mean() for r in rows]))) or 1.0


def fit_shared(rows: Sequence[Row], ridge: Ridge, size: float) -> Part:
    """What everybody's answers decide."""
    n_readout, n_units = rows[0].readout.shape[1], rows[0].effects.shape[1]
    penalty = np.concatenate([np.full(n_readout, ridge.biases), np.full(n_units, ridge.shared)])
    penalty[0] = 0.0
    return _fit(rows, penalty, size, None)


def fit_own(rows: Sequence[Row], ridge: Ridge, size: float, shared: Part) -> dict[str, Part]:
    """Each perspective's part, drawn to the shared one."""
    n_readout, n_units = rows[0].readout.shape[1], rows[0].effects.shape[1]
    if ridge.own is None:
        alone = Part(shared.readout, shared.values[:0])
        parts = fit_own(written(rows, shared.values), replace(ridge, own=1.0), 1.0, alone)
        return {name: Part(part.readout, shared.values) for name, part in parts.items()}
    penalty = np.concatenate([np.full(n_readout, ridge.own_readout), np.full(n_units, ridge.own)])
    return {name: _fit(mine, penalty, size, shared) for name, mine in by_perspective(rows).items()}


def fit_both(rows: Sequence[Row], ridge: Ridge, size: float) -> dict[str, Part]:
    """Each perspective's part, after the shared one."""
    return fit_own(rows, ridge, size, fit_shared(rows, ridge, size))


def fit_readout(rows: Sequence[Row], ridge: Ridge) -> Part:
    """Everybody's readout, where nothing more is written."""
    return fit_shared(written(rows), ridge, 1.0)


def fit_readouts(rows: Sequence[Row], ridge: Ridge) -> dict[str, Part]:
    """Each perspective's readout, where nothing more is written."""
    return fit_both(written(rows), replace(ridge, own=1.0), 1.0)


def losses(rows: Sequence[Row], parts: Mapping[str, Part]) -> Float[np.ndarray, " rows"]:
    """Cross-entropy of each row's answer, in nats."""
    return np.array([_loss(row, parts[row.perspective]) for row in rows])


def logits(row: Row, part: Part) -> OptionValues:
    """Log-odds of a question's options, in nats, up to a constant."""
    return row.readout @ part.readout + row.effects @ part.values + row.offset


def penalty_of(values: Values, ridge: Ridge, size: float) -> float:
    """What the ridge adds to the mean loss for shared values, in nats."""
    return ridge.shared * float(np.square(size * values).sum()) / 2


def by_perspective(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Each perspective's rows, in one walk over all of them."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.perspective, []).append(row)
    return grouped


def _loss(row: Row, part: Part) -> float:
    return -float(row.target @ log_softmax(logits(row, part)))


def _fit(rows: Sequence[Row], penalty: SoftmaxWeights, size: float, start: Part | None) -> Part:
    # Several people's answers to one question are added up, which is the same loss and faster.
    questions = {(row.question, id(row.effects)): row for row in rows}
    totals = {key: np.zeros(len(row.target)) for key, row in questions.items()}
    for row in rows:
        totals[row.question, id(row.effects)] += row.target
    n_readout, effects = rows[0].readout.shape[1], [row.effects for row in questions.values()]
    offsets = [row.offset for row in questions.values()]
    centre, axes = None, None
    if start is not None:
        offsets = [o + e @ start.values for o, e in zip(offsets, effects, strict=True)]
        centre = np.concatenate([start.readout, np.zeros(len(start.values))])
    if sum(map(len, effects)) < effects[0].shape[1]:
        # A ridge never leaves the span of what it is fitted on, which few answers leave small.
        axes, along = np.linalg.qr(np.concatenate(effects).T)
        effects = np.split(along.T, np.cumsum(list(map(len, effects)))[:-1])
        penalty = penalty[: n_readout + axes.shape[1]]
        centre = None if centre is None else centre[: len(penalty)]
    weights = fit_softmax(
        [
            np.hstack([row.readout, effect / size])
            for row, effect in zip(questions.values(), effects, strict=True)
        ],
        list(totals.values()),
        penalty,
        offsets=offsets,
        start=centre,
    )
    values = weights[n_readout:] / size
    values = values if axes is None else axes @ values
    return Part(weights[:n_readout], values if start is None else start.values + values)
