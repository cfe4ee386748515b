"""Whether directions get gates, and which: held to the rule that directions themselves are held to.

Two kinds of gates are tried. One weighs the directions that were learned already. The other, where
all questions have the same options, writes alone what moves these options apart most: so labels are
told apart of which no single amount says anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saepd.directions.direction import Direction
from saepd.fit.amounts import Written
from saepd.fit.asked import Asked, Report
from saepd.fit.at_sites import added
from saepd.fit.candidates import Kind
from saepd.fit.gains import gains, is_gain
from saepd.fit.gates import LearnedGates, contrast, learn_gates
from saepd.fit.gauss_newton import Around
from saepd.fit.kinds import LearnedKinds
from saepd.fit.penalised import Ridge
from saepd.fit.validate import folds
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE


class Gated(NamedTuple):
    """The gates that foretell most.

    Attributes:
        gates: The gates.
        supported: Whether they foretell answers better than what there is without them, by more
            than a standard error of the difference.
    """

    gates: LearnedGates
    supported: bool


def learn_gated(
    learned: LearnedKinds,
    kind: Kind,
    n_folds: int,
    *,
    same_options: bool,
    report: Report,
) -> Gated | None:
    """Learn gates of every kind there is a use for; None where there is none.

    Args:
        learned: What was learned without gates.
        kind: Which of its kinds the directions are of.
        n_folds: Folds of the cross-validation.
        same_options: Whether all questions have the same options.
        report: Told what is being done.
    """
    asked, ridge, solution = learned.asked, learned.ridge, learned.solutions[kind]
    candidates = []
    if same_options:
        candidates.append(contrast_gates(asked, learned.around, ridge, n_folds, report))
    if any(vector.any() for vector in solution.vectors.values()):
        written = Written(solution.vectors, 1.0, solution.moved)
        parts = folds(asked, n_folds)
        candidates.append(learn_gates(asked, written, learned.around, ridge, parts, report))
    if not candidates:
        return None
    without = learned.losses[kind] if solution.supported else learned.unsteered
    best = min(candidates, key=lambda gates: float(np.nanmean(gates.losses)))
    gained = gains(asked, without - best.losses)
    return Gated(best, is_gain(gained))


def contrast_gates(
    asked: Asked, around: Around, ridge: Ridge, n_folds: int, report: Report
) -> LearnedGates:
    """Gates that write alone what moves the options apart, which all questions share.

    Args:
        asked: The feedback.
        around: What a little of each axis would do without steering.
        ridge: Penalties of the readout.
        n_folds: Folds of the cross-validation.
        report: Told what is being done.
    """
    written = Written(dict.fromkeys(asked.perspectives, contrast(around, asked)), 0.0, {})
    return learn_gates(asked, written, around, ridge, folds(asked, n_folds), report)


def with_gates(
    directions: Sequence[Direction], gates: LearnedGates, sae: SAE[Any]
) -> list[Direction]:
    """The directions with their gates and the readouts that were fitted with these.

    Args:
        directions: Those without gates, each with its readout.
        gates: What was learned.
        sae: The dictionary that gates read with, of the lowest site.
    """
    gated = []
    for direction in directions:
        name = direction.perspective
        if not gates.written.start:
            edit, *further = added(gates.written.vectors[name], len(direction.parts))
            also = zip(direction.also, further, strict=True)
            also = tuple(replace(part, edit=further_edit) for part, further_edit in also)
            direction = replace(direction, edit=edit, also=also)
        assert direction.readout is not None
        readout = replace(direction.readout, own=gates.readout[name])
        gate = gates.gate(name, sae_hook_name(sae), sae)
        gated.append(replace(direction, gate=gate, readout=readout))
    return gated
