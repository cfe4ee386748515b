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

from saepd.directions import Direction
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.nulls import option_features
from saepd.evaluation.steered import branch_scores
from saepd.fitted_scales import FittedScales, Row, ScaleConfig, fit_scales
from saepd.schema import Item
from saepd.softmax_fit import softmax

# Root mean square that directions move an option's log-likelihood by, nats.
_MOVE = 0.01

Units = Float[np.ndarray, "units d_model"]


@dataclass(frozen=True)
class Learned:
    """Scales, and what they are scales of.

    Attributes:
        scales: From `fit_scales`.
        units: What one unit of each candidate writes.
        latents: Which latent each candidate is; None for axes of the residual stream.
    """

    scales: FittedScales
    units: Units
    latents: np.ndarray | None

    @property
    def vectors(self) -> dict[str, Float[np.ndarray, " d_model"]]:
        """Perspective -> what its direction writes at coefficient 1."""
        chosen = self.units[self.scales.units]
        return {name: values @ chosen for name, values in self.scales.values.items()}


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
    return {name: _direction(fold, name, learned, 1.0) for name in learned.vectors}


def runs(fold: Fold) -> dict[str, Run]:
    """Scales of ``latents`` and their controls: all in one pass, since most of it is the prompts'.

    The controls are latents drawn at ``random``, perspectives ``shuffled`` in the feedback, and a
    dense ``vector``.
    """

    def compute() -> dict[str, Run]:
        learned = {
            "latents": fitted_scales(fold),
            "random": fitted_random_latents(fold),
            "shuffled": fitted_shuffled(fold),
            "vector": fitted_vector(fold),
        }
        moved = _moved(fold, learned)
        return {kind: Run(own, moved[kind]) for kind, own in learned.items()}

    return fold.once("fitted", compute)


def fitted_scales(fold: Fold) -> Learned:
    """Scales of chosen latents or of all, whichever predicts the fold's own feedback better."""
    latents = np.arange(fold.sae.cfg.d_sae)
    units = _decoder(fold, latents)
    chosen = fit_scales(_rows(fold, units), ScaleConfig())
    whole = _all_latents(fold, units)
    best = min(chosen, whole, key=lambda fit: min(fit.loss.values()))
    return Learned(best, units, latents)


def fitted_random_latents(fold: Fold) -> Learned:
    """Scales of as many latents, drawn at random."""
    config = ScaleConfig()
    shuffled = np.random.default_rng(fold.seed).permutation(fold.sae.cfg.d_sae)
    fits = []
    for k in config.n_latents:
        latents = np.sort(shuffled[:k])
        units = _decoder(fold, latents)
        scales = fit_scales(_rows(fold, units), replace(config, n_latents=(k,)))
        fits.append(Learned(scales, units, latents))
    return min(fits, key=lambda fit: min(fit.scales.loss.values()))


def fitted_shuffled(fold: Fold) -> Learned:
    """Scales of chosen latents, fitted on feedback whose perspectives were shuffled."""
    names = [row.perspective for row in fold.feedback]
    order = np.random.default_rng(fold.seed).permutation(len(names))
    latents = np.arange(fold.sae.cfg.d_sae)
    units = _decoder(fold, latents)
    scales = fit_scales(_rows(fold, units, [names[i] for i in order]), ScaleConfig())
    return Learned(scales, units, latents)


def fitted_vector(fold: Fold) -> Learned:
    """A dense vector in the residual stream, fitted alike: no dictionary."""
    units = np.eye(fold.sae.cfg.d_in)
    scales = fit_scales(_rows(fold, units), replace(ScaleConfig(), n_latents=(len(units),)))
    return Learned(scales, units, None)


def _all_latents(fold: Fold, units: Units) -> FittedScales:
    """Scales of every latent, fitted in as many dimensions as the residual stream has.

    Of all scales a that write the same vector v = W^T a, a ridge penalty prefers those of least
    norm, a = W (W^T W)^-1 v. With M M = W^T W it is therefore the same to fit u of v = M u with
    that penalty, and a = W M^-1 u.
    """
    values, axes = np.linalg.eigh(units.T @ units)
    root = axes @ np.diag(np.sqrt(np.maximum(values, 0))) @ axes.T
    config = replace(ScaleConfig(), n_latents=(len(root),))
    fitted = fit_scales(_rows(fold, root), config)
    back = units @ np.linalg.pinv(root)
    return replace(
        fitted,
        units=np.arange(len(units)),
        values={name: back @ u for name, u in fitted.values.items()},
    )


def _decoder(fold: Fold, latents: np.ndarray) -> Units:
    import torch

    from saepd.injection import decoder_rows

    return decoder_rows(fold.sae, torch.from_numpy(latents)).cpu().double().numpy()


def _rows(fold: Fold, units: Units, perspectives: Sequence[str] | None = None) -> list[Row]:
    """The feedback as the fit sees it; equal questions share their effects."""
    n_positions = max(len(scores) for scores in fold.cache.text_scores.values())
    effects = {
        id_: _centred(fold.cache.gradients[id_]) @ units.T
        for id_ in dict.fromkeys(row.item for row in fold.feedback)
    }
    names = perspectives or [row.perspective for row in fold.feedback]
    return [
        Row(
            row.item,
            name,
            option_features(fold.cache.text_scores[row.item], n_positions),
            effects[row.item],
            target,
        )
        for row, name, target in zip(fold.feedback, names, fold.targets(fold.feedback), strict=True)
    ]


def _centred(gradients: Float[np.ndarray, "options d_model"]) -> Float[np.ndarray, "options d"]:
    # What moves all options alike moves none of them.
    return (gradients - gradients.mean(0)).astype(np.float64)


def _moved(fold: Fold, learned: Mapping[str, Learned]) -> dict[str, dict[tuple[str, str], Options]]:
    """Run each test item under the directions of the perspectives that it is asked for."""
    directions: dict[tuple[str, str], Direction] = {}
    for kind, own in learned.items():
        for name, vector in own.vectors.items():
            directions[kind, name] = _direction(fold, name, own, _coefficient(fold, vector))
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
    moves = [_centred(fold.cache.gradients[row.item]) @ vector for row in fold.feedback]
    size = np.sqrt(np.mean(np.concatenate(moves) ** 2))
    return float(_MOVE / size) if size > 0 else 1.0


def _direction(fold: Fold, name: str, learned: Learned, coefficient: float) -> Direction:
    import torch

    if learned.latents is None:
        dense = torch.from_numpy(learned.vectors[name]).float()
        return Direction(name, fold.cache.hook_name, coefficient=coefficient, vector=dense)
    return Direction(
        name,
        fold.cache.hook_name,
        coefficient=coefficient,
        latents=torch.from_numpy(learned.latents[learned.scales.units]),
        values=torch.from_numpy(learned.scales.values[name]).float(),
        sae=fold.sae,
    )
