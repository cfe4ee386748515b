"""What amounts of a direction each prompt should get, as a regression on what gates read.

Near any amounts the answers are a penalised softmax regression on the readings times the effects of
what is written (`saepd.fit.penalised`), with a part that all perspectives share and a part of each
one's own. The regression around what is written already gives the next amounts, and real runs say
how far to go there. These runs, with the gradients at the model without steering, also say what a
little more of an amount would do (`slope`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from saepd.fit.asked import Asked, Effect, Pair, ReadoutFeatures, Vector
from saepd.fit.averaging import average, likelihood_weights
from saepd.fit.gauss_newton import ENOUGH, MAX_ROUNDS, line_search, real_rows
from saepd.fit.penalised import (
    Part,
    Ridge,
    Row,
    effect_size,
    fit_both,
    fit_readouts,
    losses,
)
from saepd.fit.validate import Losses, fitted_without, foretold
from saepd.readout.softmax import OptionValues, option_features

Readings: TypeAlias = Mapping[str, Float[np.ndarray, " reading"]]
Amounts: TypeAlias = Mapping[Pair, float]

# Penalties to try for what the gates of all perspectives share, and for how each one differs; see
# `Ridge`.
_SHARED = (0.0005, 0.002, 0.008, 0.03, 0.12)
_OWN = (0.002, 0.01, 0.04, 0.16, 1.0)
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


class Penalties(NamedTuple):
    """Penalties over which fits are averaged.

    Attributes:
        weights: Penalties -> how much their fit counts; all have the readout's in common.
        size: See `effect_size`.
    """

    weights: Mapping[Ridge, float]
    size: float

    def fit(self, rows: Sequence[Row]) -> dict[str, Part]:
        """The average of the fits."""
        fits = [fit_both(rows, ridge, self.size) for ridge in self.weights]
        return average(fits, np.array(list(self.weights.values())))


@dataclass(frozen=True, eq=False)
class GateLearner:
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
        answered = ((row.question, row.perspective) for row in self.asked.answers)
        return list(dict.fromkeys(answered))

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
                at_nothing = centred(self.first[question, None]) @ self.written.vectors[name]
                shift = moved[pair] - moved[pair].mean() if pair in moved else 0 * at_nothing
                more = slope(at_nothing, amount, shift)
                offset = shift - (amount - self.written.start) * more
                effects[pair] = (np.outer(more, self.readings[question]), offset)
            rows.append(Row(question, name, readout[question], *effects[pair], target))
        return rows

    def cross_validate(
        self, rows: Sequence[Row], ridge: Ridge, parts: Sequence[set[str]]
    ) -> tuple[Penalties, list[dict[str, Part]]]:
        """Penalties, each counting by what it foretells, and the fits without each of the folds.

        Args:
            rows: The answers, from `rows`.
            ridge: Penalties, of which those of the readout are kept.
            parts: The questions that are held out together.
        """
        size = effect_size(rows)
        without_fold: dict[Ridge, list[Mapping[str, Part]]] = {}
        held_out: dict[Ridge, Losses] = {}

        def loss(one: Ridge) -> float:
            without_fold[one] = fitted_without(rows, parts, partial(fit_both, ridge=one, size=size))
            held_out[one] = foretold(rows, parts, without_fold[one])
            return float(np.nanmean(held_out[one]))

        shared = min((replace(ridge, shared=s, own=None) for s in _SHARED), key=loss)
        for own in _OWN:
            loss(replace(shared, own=own))
        weights = likelihood_weights(list(held_out.values()))
        fits = [average(fits, weights) for fits in zip(*without_fold.values(), strict=True)]
        return Penalties(dict(zip(held_out, weights.tolist(), strict=True)), size), fits

    def learn(self, rows: Sequence[Row], penalties: Penalties) -> dict[str, Part]:
        """Gates as they run: fitted anew around what they write, where that helps."""
        best: dict[str, Part] = {}
        least = np.inf
        for number in range(MAX_ROUNDS):
            parts = penalties.fit(rows)
            run = partial(self._run, parts, next(iter(penalties.weights)))
            (loss, (shrunk, moved)), agrees = line_search(run, float(losses(rows, parts).mean()))
            if loss > least - ENOUGH:
                break
            best, least = shrunk, loss
            if number + 1 == MAX_ROUNDS or agrees:
                break
            rows = self.rows(self.amounts(best), moved)
        return best

    def _run(
        self, parts: Mapping[str, Part], ridge: Ridge, shares: Sequence[float]
    ) -> list[tuple[float, tuple[dict[str, Part], dict[Pair, OptionValues]]]]:
        """Loss in nats where shares of what readings add are written, with parts and effects."""
        moved_by_share = self.asked.moved(
            *(self.vectors(self.amounts(parts, share)) for share in shares)
        )
        real = []
        for share, moved in zip(shares, moved_by_share, strict=True):
            plain = real_rows(self.asked, moved, self.readout_features())
            readouts = fit_readouts(plain, ridge)
            shrunk = {
                name: Part(readouts[name].readout, share * part.values)
                for name, part in parts.items()
            }
            real.append((float(losses(plain, readouts).mean()), (shrunk, moved)))
        return real

    def readout_features(self) -> ReadoutFeatures:
        """Of each question; without the model's own leaning where gates write alone."""
        if self.written.start:
            return self.asked.readout_features()
        # What is left out weighs nothing: its weight stays at zero.
        n = self.asked.n_positions
        return {q: option_features(0 * scores, n) for q, scores in self.asked.scores.items()}


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


def centred(effect: Effect) -> Float[np.ndarray, "options sites*d_model"]:
    """Gradients less their mean: what moves all options alike moves none of them."""
    return effect.gradients - effect.gradients.mean(0)
