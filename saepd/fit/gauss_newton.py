"""Vectors learned as they will run: Gauss-Newton on the answers, around what is written already.

What a vector does to the options is linear only near another vector. So a penalised softmax
regression (`saepd.fit.penalised`) on effects measured at the current vectors gives the next ones,
and a line search on the loss of real runs says how far to go there. First what all perspectives
share is learned, from nothing; then each perspective's own part, from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from saepd.fit.asked import Asked, Effect, Pair, ReadoutFeatures, Report, Vector
from saepd.fit.candidates import Candidates, Kind, Learner
from saepd.fit.penalised import (
    Ridge,
    Row,
    by_perspective,
    fit_readouts,
    fit_shared,
    losses,
    penalty_of,
    written,
)
from saepd.readout.softmax import OptionValues

Around = Mapping[Pair, Effect]
_Tried = TypeVar("_Tried")

# Shares of a step; the shorter are tried, at once, where the whole does not do what it should.
_WHOLE, _SHORTER = 1.0, (0.5, 0.25)
MAX_ROUNDS = 3
# Nats of an answer's mean loss: a round that gains less is the last.
ENOUGH = 2e-3


def around_nothing(asked: Asked, report: Report) -> Around:
    """Effects around the model without steering."""
    return _effects(asked, asked.everywhere(np.zeros(asked.width)), report)


def linear_rows(asked: Asked, around: Around) -> list[Row]:
    """The answers, on what a little more along each axis of the residual stream would do."""
    readout = asked.readout_features()
    known = {}
    for pair, (vector, moved, gradients) in around.items():
        centred = gradients - gradients.mean(0)
        offset = moved - moved.mean() - centred @ vector
        known[pair] = (centred, offset)
    rows = []
    for question, name, target in asked.answers:
        effects, offset = known.get((question, name)) or known[question, None]
        rows.append(Row(question, name, readout[question], effects, offset, target))
    return rows


def real_rows(
    asked: Asked, moved: Mapping[Pair, OptionValues], readout: ReadoutFeatures | None = None
) -> list[Row]:
    """Answers on what the vectors that ran did; no more is written.

    Args:
        asked: The feedback.
        moved: What ran, from `Asked.moved`, for every answer.
        readout: What readouts weigh of each question; `Asked.readout_features` if None.
    """
    readout = readout or asked.readout_features()
    rows = []
    for question, name, target in asked.answers:
        shift = moved[question, name] if (question, name) in moved else moved[question, None]
        nothing = np.zeros((len(target), 0))
        rows.append(Row(question, name, readout[question], nothing, shift - shift.mean(), target))
    return rows


def learn_shared(asked: Asked, ridge: Ridge, size: float, first: Around, report: Report) -> Around:
    """Effects around the vector that everybody's answers ask for, as it runs at coefficient 1.

    Args:
        asked: The feedback.
        ridge: Penalties.
        size: See `effect_size`.
        first: Effects around nothing, from `around_nothing`.
        report: Told what is being done.
    """
    around, before = first, np.inf
    for _ in range(MAX_ROUNDS):
        rows = linear_rows(asked, around)
        there = fit_shared(rows, ridge, size).values
        foretold = _readout_loss(written(rows, there), ridge) + penalty_of(there, ridge, size)

        def run(steps: Sequence[float], there: Vector = there) -> list[tuple[float, Vector]]:
            vectors = [step * there for step in steps]
            moved_by_step = asked.moved(*(asked.everywhere(vector) for vector in vectors))
            return [
                (
                    _readout_loss(real_rows(asked, moved), ridge) + penalty_of(vector, ridge, size),
                    vector,
                )
                for moved, vector in zip(moved_by_step, vectors, strict=True)
            ]

        (loss, vector), agrees = line_search(run, foretold)
        if loss > before - ENOUGH:
            break
        before = loss
        around = _effects(asked, asked.everywhere(vector), report)
        if agrees:
            break
    return around


def learn_own(
    asked: Asked, learner: Learner, kind: Kind, around: Around, report: Report
) -> tuple[Candidates, dict[Pair, OptionValues]]:
    """Candidates as they run: shrunk, or fitted anew around what they write, where that helps.

    The nats by which each option moved when they ran are given with them.

    Args:
        asked: The feedback.
        learner: What fits candidates.
        kind: Which kind.
        around: What they are fitted around first.
        report: Told what is being done.
    """
    ridge = learner.ridge
    rows = linear_rows(asked, around)
    fitted = learner.fit(kind, rows)
    best, best_moved, least = fitted, {}, np.inf
    for number in range(MAX_ROUNDS):
        as_written = [
            row
            for name, mine in by_perspective(rows).items()
            for row in written(mine, fitted.vectors[name])
        ]

        def run(
            steps: Sequence[float], fitted: Candidates = fitted
        ) -> list[tuple[float, tuple[Candidates, dict[Pair, OptionValues]]]]:
            shrunk = [fitted.shrunk(step) for step in steps]
            moved_by_step = asked.moved(*(asked.pairs(candidates.vectors) for candidates in shrunk))
            return [
                (_readout_loss(real_rows(asked, moved), ridge), (candidates, moved))
                for moved, candidates in zip(moved_by_step, shrunk, strict=True)
            ]

        (loss, (candidates, moved)), agrees = line_search(run, _readout_loss(as_written, ridge))
        if loss < least or not best_moved:
            best, best_moved, least = candidates, moved, loss
        if agrees or number + 1 == MAX_ROUNDS or ridge.own is None:
            break
        rows = linear_rows(asked, _effects(asked, asked.pairs(best.vectors), report))
        fitted = learner.fit(kind, rows)
    return best, best_moved


def line_search(
    run: Callable[[Sequence[float]], list[tuple[float, _Tried]]], foretold: float
) -> tuple[tuple[float, _Tried], bool]:
    """The share of a step that loses least as it runs.

    Args:
        run: Runs shares of the step; gives the loss of each, in nats, and what it was.
        foretold: The loss that the whole step should have.

    Returns:
        Loss and share of the best, and whether it is the whole step, which did what it should;
        shorter ones are then not run.
    """
    [whole] = run((_WHOLE,))
    if abs(whole[0] - foretold) < ENOUGH:
        return whole, True
    return min([whole, *run(_SHORTER)], key=lambda outcome: outcome[0]), False


def _readout_loss(rows: Sequence[Row], ridge: Ridge) -> float:
    """Mean loss of the answers with readouts fitted to what is written already, in nats."""
    return float(losses(rows, fit_readouts(rows, ridge)).mean())


def _effects(asked: Asked, vectors: Mapping[Pair, Vector], report: Report) -> Around:
    return asked.effects(vectors, lambda done, of: report("gradients of questions", done, of))
