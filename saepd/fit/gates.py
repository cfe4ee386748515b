"""Gates learned from feedback: how much of a direction an item gets, by what its prompt holds.

What is written is one vector times an amount that is linear in the item's reading
(`saepd.directions.gate`). Near any amounts the answers are a penalised softmax regression on the
readings times the vector's effects (`saepd.fit.penalised`), with a part that all perspectives share
and a part of each one's own. So gates are learned like vectors, as they will run: the regression
around what is written already gives the next amounts, and real runs say how far to go there. These
runs, with the gradients at the model without steering, also say what a little more of an amount
would do (`slope`).

Four choices were made on HS-Brexit's development data. Latents enter by their square root, because
a mean over a prompt is dominated by the few that fire strongly. All of them are read: gates of few
latents ranked items worse. They are not brought to one standard deviation, which would make most of
those that hardly ever fire. And where a gate writes what no direction wrote before, only that is
read: the model's own leaning between the options, no better than chance there, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import orth

from saepd.directions.gate import Gate
from saepd.fit.asked import Asked, Effect, Pair, ReadoutFeatures, Report, Vector
from saepd.fit.gauss_newton import ENOUGH, MAX_ROUNDS, line_search, real_rows
from saepd.fit.penalised import (
    Part,
    Ridge,
    Row,
    effect_size,
    fit_both,
    fit_readouts,
    fit_shared,
    losses,
)
from saepd.fit.validate import Losses, fitted_without, foretold, really_foretold
from saepd.readout.softmax import OptionValues, SoftmaxWeights, option_features

if TYPE_CHECKING:
    from sae_lens import SAE

Readings: TypeAlias = Mapping[str, Float[np.ndarray, " reading"]]
Amounts: TypeAlias = Mapping[Pair, float]

# Penalties to try for what the gates of all perspectives share, and for how each one differs; see
# `Ridge`.
_SHARED = (0.0005, 0.002, 0.008, 0.03, 0.12)
_OWN = (0.002, 0.01, 0.04, 0.16, 1.0, None)
# How far beyond the amounts of the feedback a gate may go, as a share of their range.
_MARGIN = 0.5
# Where less of a vector is written, the last digits of what it does are all that bends.
_HARDLY_ANY = 1e-2


class Written(NamedTuple):
    """What a gate decides about.

    Attributes:
        vectors: Perspective -> what an amount of 1 writes, in residual units.
        start: Amount of an item whose reading is the mean: 1 if the vectors are directions already,
            0 if they are written by the gate alone.
        moved: Nats by which that amount moves each option, from `Asked.moved`; nothing is needed
            where it is 0.
    """

    vectors: Mapping[str, Vector]
    start: float
    moved: Mapping[Pair, OptionValues]


@dataclass(frozen=True)
class LearnedGates:
    """What gates came to.

    Attributes:
        written: What they decide about.
        mean: Of the feedback's readings.
        weights: Perspective -> weight of each reading less that mean.
        limits: Perspective -> the smallest and the largest amount that is written.
        readout: Perspective -> weights of its readout, fitted under what is written.
        losses: Loss of each answer under gates that ran, its question not seen, in nats.
        tried: What each setting of the penalties foretold, to first order, in nats.
    """

    written: Written
    mean: Float[np.ndarray, " reading"]
    weights: Mapping[str, Float[np.ndarray, " reading"]]
    limits: Mapping[str, tuple[float, float]]
    readout: Mapping[str, SoftmaxWeights]
    losses: Losses
    tried: Mapping[str, float]

    def gate(self, perspective: str, hook_name: str, sae: SAE[Any] | None) -> Gate:
        """The gate of a perspective.

        Args:
            perspective: Whose.
            hook_name: The site that was read.
            sae: The dictionary that it was read with; None where the residual was.
        """
        return Gate(
            hook_name,
            torch.from_numpy(self.weights[perspective]),
            torch.from_numpy(self.mean),
            bias=self.written.start,
            sae=sae,
            limits=self.limits[perspective],
        )


def contrast(around: Mapping[Pair, Effect], asked: Asked) -> Vector:
    """The vector that moves options apart most, where all questions have the same options.

    It is the first principal axis of the options' mean gradients, raises the last option, and
    moves a question's options by one nat, root of the mean square over the answers.

    Args:
        around: What a little of each axis does to the options without steering.
        asked: The feedback.
    """
    slopes = np.stack([_centred(around[row.question, None]) for row in asked.answers])
    axis = np.linalg.svd(slopes.mean(0), full_matrices=False)[2][0]
    axis = axis if slopes.mean(0)[-1] @ axis >= 0 else -axis
    return axis / (np.sqrt(np.mean(np.square(slopes @ axis))) or 1.0)


def learn_gates(
    asked: Asked,
    written: Written,
    first: Mapping[Pair, Effect],
    ridge: Ridge,
    parts: Sequence[set[str]],
    report: Report,
) -> LearnedGates:
    """Learn one gate for each perspective, and cross-validate them with real runs.

    Args:
        asked: The feedback, with readings.
        written: What the gates decide about.
        first: What a little of each axis does to the options without steering.
        ridge: Penalties, of which those of the readout are kept.
        parts: The questions that are held out together; see `saepd.fit.validate.folds`.
        report: Told what is being done.
    """
    readings = asked.readings
    seen = np.stack([readings[row.question] for row in asked.answers])
    mean = seen.mean(0)
    # A ridge over all readings never leaves the span of those it is fitted on, so it is the same
    # fit, and a small one, in coordinates of that span.
    axes = orth(np.stack([own - mean for own in readings.values()]).T)
    centred = {q: (own - mean) @ axes for q, own in readings.items()}
    learner = _Learner(asked, centred, written, first)
    rows = learner.rows(dict.fromkeys(learner.pairs, written.start), written.moved)
    ridge, size, tried = learner.choose(rows, ridge, parts)
    report("running gates that were learned without some of the questions", 0, 1)
    fits = fitted_without(rows, parts, lambda seen: fit_both(seen, ridge, size))
    ran = [(fit, learner.vectors(learner.amounts(fit))) for fit in fits]
    held_out = really_foretold(asked, parts, {"gates": ran}, learner.readout_features())
    found = learner.learn(rows, ridge, size)
    amounts = learner.amounts(found)
    limits = {}
    for name in found:
        own = [amount for (_, other), amount in amounts.items() if other == name]
        room = _MARGIN * (max(own) - min(own))
        limits[name] = (min(own) - room, max(own) + room)
    return LearnedGates(
        written=written,
        mean=mean,
        weights={name: axes @ part.values for name, part in found.items()},
        limits=limits,
        readout={name: part.readout for name, part in found.items()},
        losses=held_out["gates"],
        tried=tried,
    )


@dataclass(frozen=True, eq=False)
class _Learner:
    """Answers on amounts of what is written.

    Attributes:
        asked: The feedback.
        readings: Question -> its reading less the mean, in coordinates of their span.
        written: What amounts are of.
        first: What a little of each axis does to the options without steering.
    """

    asked: Asked
    readings: Readings
    written: Written
    first: Mapping[Pair, Effect]

    @property
    def pairs(self) -> list[Pair]:
        """Every question with each perspective that answered it."""
        found = ((row.question, row.perspective) for row in self.asked.answers)
        return list(dict.fromkeys(found))

    def amounts(self, parts: Mapping[str, Part], share: float = 1.0) -> dict[Pair, float]:
        """How much is written of each question's vector, or a share of what the reading adds."""
        return {
            (q, name): self.written.start + share * float(self.readings[q] @ parts[name].values)
            for q, name in self.pairs
            if name is not None and name in parts
        }

    def vectors(self, amounts: Amounts) -> dict[Pair, Vector]:
        """What is written for each question."""
        return {
            (q, name): amount * self.written.vectors[str(name)]
            for (q, name), amount in amounts.items()
        }

    def rows(self, amounts: Amounts, moved: Mapping[Pair, OptionValues]) -> list[Row]:
        """The answers, on what readings would do around amounts that are written already.

        Args:
            amounts: What is written.
            moved: Nats by which it moves each option; nothing is needed where amounts are 0.
        """
        readout, rows = self.readout_features(), []
        effects: dict[Pair, tuple[Float[np.ndarray, "options reading"], OptionValues]] = {}
        for question, name, target in self.asked.answers:
            pair, amount = (question, name), amounts[question, name]
            if pair not in effects:
                at_nothing = _centred(self.first[question, None]) @ self.written.vectors[name]
                own = moved[pair] - moved[pair].mean() if pair in moved else 0 * at_nothing
                more = slope(at_nothing, amount, own)
                offset = own - (amount - self.written.start) * more
                effects[pair] = (np.outer(more, self.readings[question]), offset)
            rows.append(Row(question, name, readout[question], *effects[pair], target))
        return rows

    def choose(
        self, rows: Sequence[Row], ridge: Ridge, parts: Sequence[set[str]]
    ) -> tuple[Ridge, float, dict[str, float]]:
        """Penalties that foretell held-out questions best to first order, and what all foretold."""
        size, tried = effect_size(rows), {}
        names = self.asked.perspectives

        def fit_everybodys(seen: Sequence[Row], ridge: Ridge) -> Mapping[str, Part]:
            return dict.fromkeys(names, fit_shared(seen, ridge, size))

        def best(ridges: Sequence[Ridge], fit: Callable[..., Mapping[str, Part]]) -> Ridge:
            for one in ridges:
                fits = fitted_without(rows, parts, partial(fit, ridge=one))
                tried[str(one)] = float(np.nanmean(foretold(rows, parts, fits)))
            return min(ridges, key=lambda one: tried[str(one)])

        ridge = best([replace(ridge, shared=s, own=None) for s in _SHARED], fit_everybodys)
        ridge = best([replace(ridge, own=own) for own in _OWN], partial(fit_both, size=size))
        return ridge, size, tried

    def learn(self, rows: Sequence[Row], ridge: Ridge, size: float) -> dict[str, Part]:
        """Gates as they run: fitted anew around what they write, where that helps."""
        best: dict[str, Part] = {}
        least = np.inf
        for number in range(MAX_ROUNDS):
            found = fit_both(rows, ridge, size)
            run = partial(self._run, found, ridge)
            (loss, (parts, moved)), agrees = line_search(run, float(losses(rows, found).mean()))
            if loss > least - ENOUGH:
                break
            best, least = parts, loss
            if number + 1 == MAX_ROUNDS or agrees:
                break
            rows = self.rows(self.amounts(best), moved)
        return best

    def _run(
        self, found: Mapping[str, Part], ridge: Ridge, shares: Sequence[float]
    ) -> list[tuple[float, tuple[dict[str, Part], dict[Pair, OptionValues]]]]:
        """Loss in nats where shares of what readings add are written, with parts and effects."""
        tried = [self.amounts(found, share) for share in shares]
        real = []
        moved = self.asked.moved(*map(self.vectors, tried))
        for share, own in zip(shares, moved, strict=True):
            plain = real_rows(self.asked, own, self.readout_features())
            readouts = fit_readouts(plain, ridge)
            parts = {
                name: Part(readouts[name].readout, share * part.values)
                for name, part in found.items()
            }
            real.append((float(losses(plain, readouts).mean()), (parts, own)))
        return real

    def readout_features(self) -> ReadoutFeatures:
        """Of each question; without the model's own leaning where gates write alone."""
        if self.written.start:
            return self.asked.readout_features()
        # What is left out weighs nothing: its weight stays at zero.
        n = self.asked.n_positions
        return {q: option_features(0 * own, n) for q, own in self.asked.scores.items()}


def slope(at_nothing: OptionValues, amount: float, moved: OptionValues) -> OptionValues:
    """What a little more of an amount of a vector does to the options, in nats.

    It is the slope at the amount of the parabola through nothing and through what ran: no further
    run is needed, and the error is of third order in the amount.

    Args:
        at_nothing: What a little of the vector does where nothing is written, in nats.
        amount: How much of it is written.
        moved: Nats by which that amount moves the options.
    """
    if abs(amount) < _HARDLY_ANY:
        return at_nothing
    return 2 * moved / amount - at_nothing


def _centred(effect: Effect) -> Float[np.ndarray, "options sites*d_model"]:
    """Gradients less their mean: what moves all options alike moves none of them."""
    return effect.gradients - effect.gradients.mean(0)
