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
from scipy.special import softmax

from saepd.branches.engine.plan import Branch
from saepd.branches.run import score_continuations
from saepd.directions.direction import Direction
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.methods.nulls import OWN_RIDGE, fit_biases, read_biased
from saepd.features.config import FeatureConfig
from saepd.features.encode import Pairs, encode_pairs
from saepd.feedback.schema import Feedback
from saepd.fit.budget import fit_kl_budget
from saepd.fit.config import DirectionConfig, FitConfig
from saepd.fit.controls import (
    dense_difference,
    random_latents,
    reconstruction_only,
    shuffled_labels,
)
from saepd.fit.recipe import Fit, fit_pairs
from saepd.readout.softmax import SoftmaxWeights

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
    readouts: Mapping[str, SoftmaxWeights]

    def branch(self, item: str, perspective: str) -> Options:
        """One perspective's scores of an item's options, nats."""
        return self.scores[item][1 + list(self.directions).index(perspective)]

    def probabilities(self, item: str, perspective: str) -> Options:
        """What one perspective's branch answers, read with its readout."""
        return read_biased(self.branch(item, perspective), self.readouts[perspective])


def mean_differences(fold: Fold) -> dict[str, Steered]:
    """Chosen latents and their controls: all in one pass, since most of it is the prompts'.

    Returns:
        ``selected`` latents, each perspective's coefficient chosen on its feedback; and, with
        coefficients chosen alike, the ``dense`` mean difference of the residual, as many ``random``
        latents at the same norm, and latents chosen on feedback whose perspectives were
        ``shuffled``.
    """

    def compute() -> dict[str, Steered]:
        config, pairs, directions = fit_config(fold), fold_pairs(fold), fold_fit(fold).directions
        contrast = config.features.contrast
        shuffled = fit_pairs(fold.model, fold.sae, shuffled_labels(pairs, fold.seed), config)
        return steer(
            fold,
            {
                "selected": _grid(directions),
                "dense": _grid([dense_difference(pairs, d, contrast) for d in directions]),
                "random": _grid([random_latents(d, pairs, fold.seed) for d in directions]),
                "shuffled": _grid(shuffled.directions),
            },
        )

    return fold.once("mean differences", compute)


def predict_mean_difference(fold: Fold, kind: str) -> Predictions:
    """Each perspective by its own branch of one kind of `mean_differences`."""
    return _read_tests(fold, mean_differences(fold)[kind])


def mean_difference_branches(fold: Fold, kind: str) -> Mapping[str, Branch]:
    """Perspective -> its branch of one kind of `mean_differences`."""
    return mean_differences(fold)[kind].directions


def predict_within_budget(fold: Fold) -> Predictions:
    """Selected latents at the largest coefficient that keeps the KL budget."""
    return _read_tests(fold, within_budget(fold))


def within_budget(fold: Fold) -> Steered:
    """The branches of selected latents at a budget of `KL_BUDGET` nats on neutral text."""

    def compute() -> Steered:
        directions = fit_kl_budget(fold.model, fold_fit(fold).directions, KL_BUDGET)
        return steer(fold, {"budget": {d.perspective: [d] for d in directions}})["budget"]

    return fold.once("within budget", compute)


def predict_paper(fold: Fold) -> Predictions:
    """All latents, mean difference to the bare item, coefficient 1, scores as they are."""
    return _as_published(fold, paper(fold))


def predict_paper_calibrated(fold: Fold) -> Predictions:
    """The same with a fitted readout."""
    return _read_tests(fold, paper(fold))


def paper(fold: Fold) -> Steered:
    """The paper's recipe, its error term kept."""

    def compute() -> Steered:
        branches = {d.perspective: [d] for d in fold_fit(fold, PAPER).directions}
        return steer(fold, {"paper": branches})["paper"]

    return fold.once("paper", compute)


def predict_paper_without_error(fold: Fold) -> Predictions:
    """The paper's recipe with the SAE's reconstruction in the place of the activation."""
    branches = paper_without_error(fold)
    scores = branch_scores(fold, list(branches.values()), fold.test)
    place = {name: index for index, name in enumerate(branches, 1)}
    return fold.predict(lambda item, name: softmax(scores[item.id][place[name]]))


def paper_without_error(fold: Fold) -> Mapping[str, Branch]:
    """Perspective -> its direction, and what takes the error term away."""
    return {
        d.perspective: [d, reconstruction_only(fold.sae, d)]
        for d in fold_fit(fold, PAPER).directions
    }


def predict_reconstruction(fold: Fold) -> Predictions:
    """No steering, but the SAE's reconstruction in the place of the activation."""
    scores = branch_scores(fold, list(reconstruction(fold).values()), fold.test)
    return fold.predict(lambda item, _: softmax(scores[item.id][1]))


def reconstruction(fold: Fold) -> Mapping[str, Branch]:
    """The reconstruction at all positions, the same for every perspective: under the first."""
    [direction, *_] = fold_fit(fold, PAPER).directions
    return {direction.perspective: reconstruction_only(fold.sae, direction)}


def fit_config(fold: Fold, config: FitConfig | None = None) -> FitConfig:
    """A configuration with the prompt that the task words.

    Where there is one perspective only, no others' feedback can be its contrast: its answers are
    then compared with the other options.
    """
    config = config or FitConfig()
    features = config.features
    if len(fold.perspectives) == 1 and features.contrast == "others":
        features = replace(features, contrast="options")
    return replace(config, features=features, readout=fold.readout)


def fold_pairs(fold: Fold, config: FitConfig | None = None) -> Pairs:
    """The fold's feedback, encoded in the task's wording."""
    config = fit_config(fold, config)
    return fold.once(
        f"pairs {config.features.encoding}",
        lambda: encode_pairs(fold.model, fold.sae, fold.feedback, config.features, config.readout),
    )


def fold_fit(fold: Fold, config: FitConfig | None = None) -> Fit:
    """Features and one direction of each perspective, from the fold's feedback.

    Raises:
        InputError: whatever `saepd.fit.recipe.fit_pairs` refuses.
    """
    config = fit_config(fold, config)
    pairs = fold_pairs(fold, config)
    return fold.once(f"fit {config}", lambda: fit_pairs(fold.model, fold.sae, pairs, config))


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


def steer(fold: Fold, groups: Mapping[str, Mapping[str, Sequence[Branch]]]) -> dict[str, Steered]:
    """Choose each perspective's branch on its own feedback, and run the chosen on the test items.

    Args:
        fold: The draw.
        groups: Name -> perspective -> candidates, of which the one is kept under which the fitted
            readout makes the feedback likeliest. Groups only share their passes.
    """
    chosen: dict[str, dict[str, tuple[Direction, ...]]] = {group: {} for group in groups}
    readouts: dict[str, dict[str, SoftmaxWeights]] = {group: {} for group in groups}
    for name in fold.perspectives:
        rows = fold.rows(name)
        candidates = [(group, branch) for group, of in groups.items() for branch in of[name]]
        ids = [row.item for row in rows]
        of_candidates = branch_scores(fold, [branch for _, branch in candidates], ids)
        best = dict.fromkeys(groups, np.inf)
        for index, (group, branch) in enumerate(candidates, 1):
            scores = {id_: by_branch[index] for id_, by_branch in of_candidates.items()}
            weights = fit_biases(fold, rows, OWN_RIDGE, scores=scores)
            loss = _loss(fold, rows, scores, weights)
            if loss < best[group]:
                best[group], readouts[group][name] = loss, weights
                single = isinstance(branch, Direction)
                chosen[group][name] = (branch,) if single else tuple(branch)
    branches = [branch for of in chosen.values() for branch in of.values()]
    scores = branch_scores(fold, branches, fold.test)
    steered, first = {}, 1
    for group, of in chosen.items():
        places = [0, *range(first, first + len(of))]
        first += len(of)
        steered[group] = Steered(
            of, {id_: by_branch[places] for id_, by_branch in scores.items()}, readouts[group]
        )
    return steered


def _loss(
    fold: Fold, rows: Sequence[Feedback], scores: Mapping[str, Options], weights: SoftmaxWeights
) -> float:
    """Mean cross-entropy of the feedback, nats."""
    likelihoods = [
        target @ np.log(np.maximum(read_biased(scores[row.item], weights), 1e-12))
        for row, target in zip(rows, fold.targets(rows), strict=True)
    ]
    return -float(np.mean(likelihoods))


def _grid(directions: Sequence[Direction]) -> dict[str, list[Direction]]:
    return {d.perspective: [d.scaled(c * d.coefficient) for c in COEFFICIENTS] for d in directions}


def _read_tests(fold: Fold, steered: Steered) -> Predictions:
    return fold.predict(lambda item, name: steered.probabilities(item.id, name))


def _as_published(fold: Fold, steered: Steered) -> Predictions:
    return fold.predict(lambda item, name: softmax(steered.branch(item.id, name)))
