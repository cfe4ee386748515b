"""What is learned from feedback, in several kinds side by side: chosen latents and their controls.

Every kind is fitted in the same way to the same captured questions, and is held to the same rule:
in cross-validation with vectors that run, it must foretell answers better than the readout alone,
by more than a standard error of the difference; else it writes nothing. Controls, which are there
for comparison only, run on some of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from saepd.branches.dose import relative_dose
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.fit.asked import Asked, Pair, Report, Vector
from saepd.fit.candidates import Kind, Learner, Norms
from saepd.fit.choosing_sites import best_sites, effects_at
from saepd.fit.config import LearningConfig
from saepd.fit.gains import first_as_good, gains, is_gain
from saepd.fit.gauss_newton import (
    Around,
    around_nothing,
    learn_own,
    learn_shared,
    linear_rows,
    real_rows,
)
from saepd.fit.penalised import (
    Part,
    Ridge,
    Row,
    effect_size,
    fit_both,
    fit_readout,
    fit_readouts,
    fit_shared,
    written,
)
from saepd.fit.sparse import Dictionary, Sparse
from saepd.fit.validate import (
    Losses,
    fitted_without,
    folds,
    foretold,
    really_foretold,
    some_answers,
)
from saepd.metrics.intervals import Interval, interval
from saepd.readout.softmax import OptionValues, SoftmaxWeights

# Answers that controls run on: their gain is known to about a hundredth of a nat then.
_CONTROLLED = 200

_Fit: TypeAlias = Callable[..., Mapping[str, Part]]


class Solution(NamedTuple):
    """What one kind came to.

    Attributes:
        latents: Perspective -> the latents that it writes, in the order of their choice; None for a
            dense vector.
        vectors: Perspective -> what is written at coefficient 1, in residual units.
        moved: Nats by which it moved each option when it ran; empty where nothing is written.
        readout: Perspective -> weights of its readout, fitted under what is written.
        supported: Whether it foretells answers better than the readout alone.
    """

    latents: Mapping[str, Sparse] | None
    vectors: dict[str, Vector]
    moved: Mapping[Pair, OptionValues]
    readout: dict[str, SoftmaxWeights]
    supported: bool


@dataclass(frozen=True)
class LearnedKinds:
    """All that was learned from one set of answers.

    Attributes:
        asked: The answers, at the sites that cross-validation chose.
        dictionary: What one unit of each latent of these sites writes.
        around: What a little of each axis of the residual stream would do without steering.
        base: Weights of everybody's readout without steering.
        ridge: The penalties that cross-validation chose.
        solutions: Kind -> what it came to.
        unsteered: Loss of each answer under the readout alone, its question not seen, in nats.
        losses: Kind -> the same under vectors that ran; and of the first kind's under another
            perspective's vector, by the name ``another's``. NaN where a control did not run.
        tried: What each setting of the penalties foretold, to first order, in nats.
    """

    asked: Asked
    dictionary: Dictionary
    around: Around
    base: SoftmaxWeights
    ridge: Ridge
    solutions: dict[Kind, Solution]
    unsteered: Losses
    losses: dict[str, Losses]
    tried: dict[str, float]

    @property
    def unsteered_loss(self) -> float:
        """Mean loss of the readout alone on questions not seen, nats."""
        return float(np.nanmean(self.unsteered))

    def gain(self, kind: str, perspective: str | None = None) -> Interval | None:
        """Nats an answer gained over the readout alone on questions not seen, with its interval."""
        return self.gain_of(self.losses[kind], perspective)

    def gain_of(self, losses: Losses, perspective: str | None = None) -> Interval | None:
        """The same of answers with other losses."""
        gained = gains(self.asked, self.unsteered - losses, perspective)
        return interval(gained) if len(gained) else None


def learn_kinds(
    asked: Asked,
    dictionary: Dictionary,
    config: LearningConfig,
    kinds: Sequence[Kind],
    *,
    controls: Sequence[Kind] = (),
    seed: int = 0,
    report: Report,
) -> LearnedKinds:
    """Learn each kind on all answers, and cross-validate it.

    Args:
        asked: The answers.
        dictionary: What one unit of each latent of the SAEs writes.
        config: What is tried.
        kinds: Which kinds; the first is the one that another perspective's vectors are compared to.
        controls: Kinds that are cross-validated only, on `some_answers`.
        seed: Seed of random latents and of shuffling.
        report: Told what is being done.

    Raises:
        InputError: there are too few questions.
    """
    parts = folds(asked, config.n_folds)
    first = around_nothing(asked, report)
    report("trying settings", 0, 1)
    sites = best_sites(linear_rows(asked, first), dictionary, config, kinds[0], parts)
    first = effects_at(first, sites, len(asked.hook_names))
    asked, dictionary = asked.at(sites), dictionary.at(sites)
    rows = linear_rows(asked, first)
    size = effect_size(rows)
    tried: dict[str, float] = {}

    def loss_of(ridge: Ridge, seen: Sequence[Row], fit: _Fit) -> Losses:
        held_out = foretold(seen, parts, fitted_without(seen, parts, partial(fit, ridge=ridge)))
        tried[str(ridge)] = float(np.nanmean(held_out))
        return held_out

    def best(ridges: Iterable[Ridge], seen: Sequence[Row], fit: _Fit) -> Ridge:
        """The penalties under which answers to questions not seen are foretold best."""
        mean_losses = {ridge: np.nanmean(loss_of(ridge, seen, fit)) for ridge in ridges}
        return min(mean_losses, key=lambda ridge: mean_losses[ridge])

    def first_good(
        ridges: Iterable[Ridge], seen: Sequence[Row], fit: _Fit, than: Losses | None = None
    ) -> Ridge:
        """The first of the penalties that foretells as well as the best."""
        return first_as_good(asked, {one: loss_of(one, seen, fit) for one in ridges}, than)

    def fit_everybodys(seen: Sequence[Row], ridge: Ridge) -> dict[str, Part]:
        return dict.fromkeys(asked.perspectives, fit_shared(seen, ridge, size))

    plain = written(rows)
    own_readout = sorted(config.own_readout, reverse=True)
    ridge = first_good(
        [Ridge(biases=b, own_readout=own_readout[0]) for b in sorted(config.biases)],
        plain,
        fit_readouts,
    )
    ridge = first_good([replace(ridge, own_readout=o) for o in own_readout], plain, fit_readouts)
    unsteered = foretold(
        plain, parts, fitted_without(plain, parts, partial(fit_readouts, ridge=ridge))
    )
    ridge = best([replace(ridge, shared=s) for s in config.shared], rows, fit_everybodys)
    around = learn_shared(asked, ridge, size, first, report)
    rows = linear_rows(asked, around)
    fit_each = partial(fit_both, size=size)
    ridge = best([replace(ridge, own=own) for own in (*config.own, None)], rows, fit_each)
    # Beside each perspective's own part, what they share may be held back less.
    ridge = first_good(
        [replace(ridge, shared=s) for s in sorted(config.shared)], rows, fit_each, unsteered
    )
    max_norms = config.max_dose * residual_norms(asked)
    learner = Learner(dictionary, config.n_latents, ridge, size, max_norms, seed)
    settings, some = {}, some_answers(asked, parts, _CONTROLLED)

    def controlled(vectors: Mapping[str, Vector]) -> dict[Pair, Vector]:
        return {pair: vector for pair, vector in asked.pairs(vectors).items() if pair in some}

    for kind in (*kinds, *controls):
        fits = [learner.fit(kind, [r for r in rows if r.question not in part]) for part in parts]
        runs = asked.pairs if kind in kinds else controlled
        settings[kind] = [(candidates.parts, runs(candidates.vectors)) for candidates in fits]
        if kind == kinds[0]:
            settings["another's"] = [
                (candidates.parts, controlled(_rotated(candidates.vectors))) for candidates in fits
            ]
    report("running what was learned without some of the questions", 0, 1)
    losses = really_foretold(asked, parts, settings)
    solutions: dict[Kind, Solution] = {}
    for kind in kinds:
        supported = is_gain(gains(asked, unsteered - losses[kind]))
        if supported or config.anyway:
            solutions[kind] = _steering(asked, learner, kind, around, supported, report)
        else:
            solutions[kind] = _nothing(asked, plain, ridge)
    base = fit_readout(plain, ridge).readout
    return LearnedKinds(asked, dictionary, first, base, ridge, solutions, unsteered, losses, tried)


def _nothing(asked: Asked, plain: Sequence[Row], ridge: Ridge) -> Solution:
    """What a kind comes to that is not supported: readouts alone."""
    readouts = {name: part.readout for name, part in fit_readouts(plain, ridge).items()}
    return Solution(None, dict.fromkeys(readouts, np.zeros(asked.width)), {}, readouts, False)


def _steering(
    asked: Asked, learner: Learner, kind: Kind, around: Around, supported: bool, report: Report
) -> Solution:
    """What a kind comes to on all answers, with readouts that are fitted to what it does."""
    candidates, moved = learn_own(asked, learner, kind, around, report)
    as_run = fit_readouts(real_rows(asked, moved), learner.ridge)
    readouts = {name: part.readout for name, part in as_run.items()}
    return Solution(candidates.latents, candidates.vectors, moved, readouts, supported)


def residual_norms(asked: Asked) -> Norms:
    """Mean norm of the residual at each site, on neutral prompts."""
    axis = AddVector(np.eye(1, int(asked.model.cfg.d_model))[0])
    units = [Direction("unit", name, axis, asked.positions) for name in asked.hook_names]
    return 1 / np.array(relative_dose(asked.model, units))


def _rotated(vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    """Every perspective's vector given to the one before it."""
    names = list(vectors)
    return {name: vectors[names[(i + 1) % len(names)]] for i, name in enumerate(names)}
