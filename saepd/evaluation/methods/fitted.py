"""Directions whose scales are learned from the fold's feedback, and their controls.

The fit is linear, and so is the readout: every direction runs at a coefficient so small that its
effect is of first order, and the difference it makes is blown up again, which is contrastive
decoding (`cad`) over the options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from saepd.directions.direction import Direction
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.methods.steered import branch_scores
from saepd.feedback.schema import Item
from saepd.fit.config import ScaleConfig
from saepd.fit.learn import Learned, Seen, centred_gradients, decoder, learn_latents, scale_rows
from saepd.fit.scales import fit_scales
from saepd.readout.softmax import option_features

# Root mean square that directions move an option's log-likelihood by, nats.
_MOVE = 0.01


@dataclass(frozen=True)
class Run:
    """What was learned in one way, and what its directions do to the test items.

    Attributes:
        learned: Scales and candidates.
        moved: (item, perspective) -> nats by which the direction moves each option, to first order.
    """

    learned: Learned
    moved: Mapping[tuple[str, str], Options]


def predict_fitted(fold: Fold, kind: str) -> Predictions:
    """The learned directions' answers to the test items."""
    run = runs(fold)[kind]

    def steered(item: Item, name: str) -> Options:
        weights = run.learned.scales.readout[name]
        features = option_features(fold.cache.text_scores[item.id], len(weights) - 2)
        return softmax(features @ weights + run.moved[item.id, name])

    return fold.predict(steered)


def fitted_directions(fold: Fold, kind: str) -> dict[str, Direction]:
    """Perspective -> its learned direction, at coefficient 1."""
    learned = runs(fold)[kind].learned
    return {
        name: learned.direction(name, fold.cache.hook_name, fold.sae) for name in learned.vectors
    }


def runs(fold: Fold) -> dict[str, Run]:
    """Scales of ``latents`` and their controls: all in one pass, since most of it is the prompts'.

    The controls are latents drawn at ``random``, perspectives ``shuffled`` in the feedback, and a
    dense ``vector``.
    """

    def compute() -> dict[str, Run]:
        learned = {
            "latents": learn_latents(fold.sae, _seen(fold), ScaleConfig()),
            "random": fitted_random_latents(fold),
            "shuffled": fitted_shuffled(fold),
            "vector": fitted_vector(fold),
        }
        moved = _moved(fold, learned)
        return {kind: Run(own, moved[kind]) for kind, own in learned.items()}

    return fold.once("fitted", compute)


def fitted_random_latents(fold: Fold) -> Learned:
    """Scales of as many latents, drawn at random."""
    config = ScaleConfig()
    shuffled = np.random.default_rng(fold.seed).permutation(fold.sae.cfg.d_sae)
    fits = []
    for k in config.n_latents:
        latents = np.sort(shuffled[:k])
        units = decoder(fold.sae, latents)
        scales = fit_scales(scale_rows(_seen(fold), units), replace(config, n_latents=(k,)))
        fits.append(Learned(scales, units, latents))
    return min(fits, key=lambda fit: min(fit.scales.loss.values()))


def fitted_shuffled(fold: Fold) -> Learned:
    """Scales of chosen latents, fitted on feedback whose perspectives were shuffled."""
    names = [row.perspective for row in fold.feedback]
    order = np.random.default_rng(fold.seed).permutation(len(names))
    latents = np.arange(fold.sae.cfg.d_sae)
    units = decoder(fold.sae, latents)
    scales = fit_scales(scale_rows(_seen(fold, [names[i] for i in order]), units), ScaleConfig())
    return Learned(scales, units, latents)


def fitted_vector(fold: Fold) -> Learned:
    """A dense vector in the residual stream, fitted alike: no dictionary."""
    units = np.eye(fold.sae.cfg.d_in)
    scales = fit_scales(
        scale_rows(_seen(fold), units), replace(ScaleConfig(), n_latents=(len(units),))
    )
    return Learned(scales, units, None)


def _seen(fold: Fold, perspectives: Sequence[str] | None = None) -> list[Seen]:
    """The fold's feedback, or the same with other perspectives."""
    names = perspectives or [row.perspective for row in fold.feedback]
    return [
        Seen(
            row.item,
            name,
            fold.cache.text_scores[row.item],
            fold.cache.gradients[row.item],
            target,
        )
        for row, name, target in zip(fold.feedback, names, fold.targets(fold.feedback), strict=True)
    ]


def _moved(fold: Fold, learned: Mapping[str, Learned]) -> dict[str, dict[tuple[str, str], Options]]:
    """Run each test item under the directions of the perspectives that it is asked for."""
    directions: dict[tuple[str, str], Direction] = {}
    for kind, own in learned.items():
        for name, vector in own.vectors.items():
            directions[kind, name] = own.direction(
                name, fold.cache.hook_name, fold.sae, coefficient=_coefficient(fold, vector)
            )
    asked: dict[str, list[str]] = {}
    for id_, name in fold.asked:
        asked.setdefault(id_, []).append(name)
    moved: dict[str, dict[tuple[str, str], Options]] = {kind: {} for kind in learned}
    for names in dict.fromkeys(map(tuple, asked.values())):
        branches = [(kind, name) for kind in learned for name in names]
        ids = [id_ for id_, own in asked.items() if tuple(own) == names]
        scored = branch_scores(fold, [directions[branch] for branch in branches], ids)
        for id_, scores in scored.items():
            for (kind, name), own in zip(branches, scores[1:], strict=True):
                moved[kind][id_, name] = (own - scores[0]) / directions[kind, name].coefficient
    return moved


def _coefficient(fold: Fold, vector: Float[np.ndarray, " d_model"]) -> float:
    """What a direction is multiplied by, so that it moves options by little."""
    moves = [centred_gradients(fold.cache.gradients[row.item]) @ vector for row in fold.feedback]
    size = np.sqrt(np.mean(np.concatenate(moves) ** 2))
    return float(_MOVE / size) if size > 0 else 1.0
