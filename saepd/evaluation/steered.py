"""Directions made of mean differences: the paper's recipe, chosen latents, and their controls.

Each method gives every perspective some candidate branches; the one that makes the perspective's
own feedback likeliest is run on the test items. Except for the paper's recipe as published, which
takes the model's scores as they are, every branch is read as the strongest null is: at a
temperature and with position biases fitted on the same feedback. So what a method gains over that
null is what steering brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from saepd.branches import score_continuations
from saepd.controls import dense_difference, random_latents, reconstruction_only, shuffled_labels
from saepd.directions import Direction
from saepd.engine.plan import Branch
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.nulls import OWN_RIDGE, Weights, fit_biases, read_biased
from saepd.features import FeatureConfig, Pairs, encode_pairs
from saepd.fit import DirectionConfig, FitConfig, fit_pairs
from saepd.prompts import ReadoutConfig
from saepd.scales import fit_kl_budget
from saepd.softmax_fit import softmax

# Multiples of the mean difference that are tried on the feedback.
COEFFICIENTS = (1.0, 4.0, 16.0)
KL_BUDGET = 0.1
PAPER = FitConfig(FeatureConfig(k=0, contrast="anchor"), DirectionConfig(positions="all"))


@dataclass(frozen=True)
class Steered:
    """Every perspective's branch, and what it says about the test items.

    Attributes:
        directions: Perspective -> the directions of its branch, at their coefficients.
        scores: Item -> log-likelihood of each option's text, nats; the base first, then the
            perspectives in the order of ``directions``.
        readouts: Perspective -> weights of `fit_biases`, fitted on its feedback under its branch.
    """

    directions: Mapping[str, tuple[Direction, ...]]
    scores: Mapping[str, Float[np.ndarray, "branches options"]]
    readouts: Mapping[str, Weights]

    def branch(self, item: str, perspective: str) -> Options:
        """One perspective's scores of an item's options, nats."""
        return self.scores[item][1 + list(self.directions).index(perspective)]

    def probabilities(self, item: str, perspective: str) -> Options:
        """What one perspective's branch answers, read with its readout."""
        return read_biased(self.branch(item, perspective), self.readouts[perspective])


def selected_latents(fold: Fold) -> Steered:
    """Chosen latents, each perspective's coefficient chosen on its feedback."""
    return fold.once("selected latents", lambda: steer(fold, _grid(fold_directions(fold))))


def predict_selected(fold: Fold) -> Predictions:
    """`selected_latents`, each perspective by its own branch."""
    return _read(fold, selected_latents(fold))


def predict_kl_budget(fold: Fold) -> Predictions:
    """Chosen latents at the largest coefficient whose mean KL on neutral text is in the budget."""
    return _read(fold, kl_budget(fold))


def kl_budget(fold: Fold) -> Steered:
    """Chosen latents at a budget of `KL_BUDGET` nats."""

    def compute() -> Steered:
        found = fit_kl_budget(fold.model, fold_directions(fold), KL_BUDGET)
        return steer(fold, {d.perspective: [d] for d in found})

    return fold.once("kl budget", compute)


def predict_dense(fold: Fold) -> Predictions:
    """Difference in means of the residual itself: no SAE."""
    contrast = FeatureConfig().contrast
    pairs = fold_pairs(fold)
    dense = [dense_difference(pairs, d, contrast) for d in fold_directions(fold)]
    return _read(fold, steer(fold, _grid(dense)))


def predict_random_latents(fold: Fold) -> Predictions:
    """As many other latents, at the same norm."""
    pairs = fold_pairs(fold)
    others = [random_latents(d, pairs, fold.seed) for d in fold_directions(fold)]
    return _read(fold, steer(fold, _grid(others)))


def predict_shuffled(fold: Fold) -> Predictions:
    """Latents chosen on feedback whose perspectives were dealt out at random."""
    shuffled = shuffled_labels(fold_pairs(fold), fold.seed)
    config = fit_config(fold)
    return _read(
        fold, steer(fold, _grid(fit_pairs(fold.model, fold.sae, shuffled, config).directions))
    )


def predict_paper(fold: Fold) -> Predictions:
    """All latents, mean difference to the bare item, coefficient 1, scores as they are."""
    return _as_published(fold, paper(fold))


def predict_paper_calibrated(fold: Fold) -> Predictions:
    """The same with a fitted readout."""
    return _read(fold, paper(fold))


def paper(fold: Fold) -> Steered:
    """The paper's recipe, its error term kept."""

    def compute() -> Steered:
        return steer(fold, {d.perspective: [d] for d in fold_directions(fold, PAPER)})

    return fold.once("paper", compute)


def predict_paper_without_error(fold: Fold) -> Predictions:
    """The paper's recipe with the SAE's reconstruction in the place of the activation."""
    branches = {
        d.perspective: [d, reconstruction_only(fold.sae, d)] for d in fold_directions(fold, PAPER)
    }
    scores = branch_scores(fold, list(branches.values()), fold.test)
    names = list(branches)
    return fold.predict(lambda item, name: softmax(scores[item.id][1 + names.index(name)]))


def predict_reconstruction(fold: Fold) -> Predictions:
    """No steering, but the SAE's reconstruction in the place of the activation."""
    [direction, *_] = fold_directions(fold, PAPER)
    scores = branch_scores(fold, [reconstruction_only(fold.sae, direction)], fold.test)
    return fold.predict(lambda item, _: softmax(scores[item.id][1]))


def fit_config(fold: Fold, config: FitConfig | None = None) -> FitConfig:
    """A configuration with the prompt that the task words."""
    readout = ReadoutConfig(template=fold.task.wording.plain)
    return replace(config or FitConfig(), readout=readout)


def fold_pairs(fold: Fold, config: FitConfig | None = None) -> Pairs:
    """The fold's feedback, encoded in the task's wording."""
    own = fit_config(fold, config)
    return fold.once(
        f"pairs {own.features.contrast} {own.features.read_at}",
        lambda: encode_pairs(fold.model, fold.sae, fold.feedback, own.features, own.readout),
    )


def fold_directions(fold: Fold, config: FitConfig | None = None) -> list[Direction]:
    """One direction a perspective, from the fold's feedback.

    Raises:
        InputError: whatever `saepd.fit.fit_pairs` refuses.
    """
    own = fit_config(fold, config)
    pairs = fold_pairs(fold, config)
    return fold.once(
        f"directions {own}", lambda: fit_pairs(fold.model, fold.sae, pairs, own).directions
    )


def branch_scores(
    fold: Fold, branches: Sequence[Branch], ids: Sequence[str]
) -> dict[str, Float[np.ndarray, "branches options"]]:
    """Log-likelihood of every option's text under the base and every branch, nats."""
    items = [fold.task.by_id[id_] for id_ in dict.fromkeys(ids)]
    scored = score_continuations(
        fold.model,
        [fold.cache.prompt(item) for item in items],
        [item.options for item in items],
        branches,
    )
    return {
        item.id: scores.double().numpy() for item, (scores, _) in zip(items, scored, strict=True)
    }


def steer(fold: Fold, candidates: Mapping[str, Sequence[Branch]]) -> Steered:
    """Choose each perspective's branch on its own feedback, and run the chosen on the test items.

    Args:
        fold: The draw.
        candidates: Perspective -> branches, of which the one is kept under which the fitted
            readout makes the feedback likeliest.
    """
    chosen: dict[str, tuple[Direction, ...]] = {}
    readouts: dict[str, Weights] = {}
    for name, branches in candidates.items():
        rows = fold.rows(name)
        found = branch_scores(fold, branches, [row.item for row in rows])
        targets = fold.targets(rows)
        best = np.inf
        for index, branch in enumerate(branches, 1):
            scores = {id_: own[index] for id_, own in found.items()}
            weights = fit_biases(fold, rows, OWN_RIDGE, scores=scores)
            loss = np.mean(
                [
                    -(target @ np.log(np.maximum(read_biased(scores[row.item], weights), 1e-12)))
                    for row, target in zip(rows, targets, strict=True)
                ]
            )
            if loss < best:
                best, readouts[name] = loss, weights
                chosen[name] = (branch,) if isinstance(branch, Direction) else tuple(branch)
    return Steered(chosen, branch_scores(fold, list(chosen.values()), fold.test), readouts)


def _grid(directions: Sequence[Direction]) -> dict[str, list[Direction]]:
    return {d.perspective: [d.scaled(c * d.coefficient) for c in COEFFICIENTS] for d in directions}


def _read(fold: Fold, steered: Steered) -> Predictions:
    return fold.predict(lambda item, name: steered.probabilities(item.id, name))


def _as_published(fold: Fold, steered: Steered) -> Predictions:
    return fold.predict(lambda item, name: softmax(steered.branch(item.id, name)))
