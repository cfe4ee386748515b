"""One answer for the whole population, made of all perspectives' learned directions.

Either each direction runs in a branch of its own and the branches' answers are merged, or all are
written into one branch, as their sum or as their mean. Directions are gated where items have
labels, and else of learned latents without gates. Branches are read with the readouts that were
fitted with them, before they are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from saepd.directions.direction import Direction
from saepd.directions.fitted_readout import FittedReadout
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.methods.fitted import fitted_directions
from saepd.evaluation.methods.gated import gated_branches
from saepd.evaluation.methods.merged import merged
from saepd.evaluation.methods.nulls import POOLED_RIDGE, fit_readout
from saepd.feedback.targets import answered
from saepd.merge.config import MergeConfig
from saepd.merge.weights import fit_merge_weights
from saepd.readout.fitted import as_fitted, fitted_weights
from saepd.readout.options import read_options

# How the directions of one branch are added up; the mean is weighted by shares of the population.
ADDED = ("sum", "mean")

BranchOptions = Float[np.ndarray, "branches options"]


def predict_merged(fold: Fold, config: MergeConfig) -> Predictions:
    """The base and the branches of those who are asked about an item, merged."""
    return _for_everybody(fold, lambda log_probs, _: merged(log_probs, config))


def predict_weighted(fold: Fold) -> Predictions:
    """Mean of the branches' answers, with weights that everybody's feedback decides."""
    weights = fold.once("merge weights", lambda: merge_weights(fold))

    def merge(log_probs: BranchOptions, names: Sequence[str]) -> Options:
        of_asked = np.array([weights[name] for name in names])
        total = of_asked.sum()
        # Those who are asked may all have no weight.
        shares = of_asked / total if total > 0 else np.full(len(names), 1 / len(names))
        return merged(log_probs, MergeConfig("weighted", weights=(0.0, *shares.tolist())))

    return _for_everybody(fold, merge)


def predict_added(fold: Fold, kind: str) -> Predictions:
    """One branch for all, read with a readout that everybody's feedback fits under it."""
    items = [fold.task.by_id[id_] for id_ in fold.test]
    read = read_options(fold.model, items, list(added_branch(fold, kind).values()), fold.readout)
    probabilities = {
        item.id: one.log_probs()[1].exp().double().cpu().numpy()
        for item, one in zip(items, read, strict=True)
    }
    return fold.predict(lambda item, _: probabilities[item.id])


def learned_directions(fold: Fold) -> Mapping[str, Direction]:
    """Perspective -> what is learned from its feedback, with its readout."""
    return gated_branches(fold) if fold.task.positive else fitted_directions(fold, "latents")


def added_branch(fold: Fold, kind: str) -> Mapping[str, Sequence[Direction]]:
    """All learned directions in one branch, as their sum or their mean; it is nobody's own."""

    def compute() -> dict[str, list[Direction]]:
        branch = _added(fold, kind)
        [first, *_] = branch
        assert first.readout is not None
        before, scores = first.readout, _on_feedback(fold)
        place = 1 + len(branch) + ADDED.index(kind)
        weights = fit_readout(
            [scores[row.item][0] for row in fold.feedback],
            fold.feedback,
            POOLED_RIDGE,
            before.n_positions,
            offsets=[scores[row.item][place] - scores[row.item][0] for row in fold.feedback],
        )
        readout = FittedReadout(before.config, before.base, weights)
        return {"everybody": [replace(direction, readout=readout) for direction in branch]}

    return fold.once(f"added {kind}", compute)


def merge_weights(fold: Fold) -> dict[str, float]:
    """Perspective -> its weight, fitted on what the branches say of the feedback's questions.

    The directions have seen these answers, each those of its own perspective, so the base, which
    has not, takes no part.
    """
    learned, scores = learned_directions(fold), _on_feedback(fold)
    shares = fold.task.shares(list(learned))
    readouts = fitted_weights([[direction] for direction in learned.values()], fold.readout)
    assert readouts is not None
    read = {
        id_: as_fitted(torch.from_numpy(branches[: len(readouts)]), readouts)[1:]
        for id_, branches in scores.items()
    }
    # As many rows of each perspective were drawn, whatever its share.
    people = [len(learned) * shares[row.perspective] * answered(row) for row in fold.feedback]
    weights = fit_merge_weights(
        [read[row.item] for row in fold.feedback],
        people,
        [row.prompt for row in fold.feedback],
        list(shares.values()),
    )
    return dict(zip(learned, weights, strict=True))


def _added(fold: Fold, kind: str) -> list[Direction]:
    learned = learned_directions(fold)
    shares = fold.task.shares(list(learned)) if kind == "mean" else dict.fromkeys(learned, 1.0)
    return [shares[name] * direction for name, direction in learned.items()]


def _on_feedback(fold: Fold) -> Mapping[str, BranchOptions]:
    """Scores of the feedback's items, nats: of the base, each branch, and each kind of sum."""

    def compute() -> dict[str, BranchOptions]:
        items = {row.item: row.as_item() for row in fold.feedback}
        branches = [[direction] for direction in learned_directions(fold).values()]
        branches += [_added(fold, kind) for kind in ADDED]
        read = read_options(fold.model, list(items.values()), branches, fold.readout, raw=True)
        return {
            id_: one.log_likelihoods.double().cpu().numpy()
            for id_, one in zip(items, read, strict=True)
        }

    return fold.once("branches on feedback", compute)


def _for_everybody(
    fold: Fold, merge: Callable[[BranchOptions, Sequence[str]], Options]
) -> Predictions:
    """What a merge makes of the base and of those who are asked about an item."""
    names, read = list(learned_directions(fold)), _on_tests(fold)
    probabilities = {
        id_: merge(read[id_][[0, *(1 + names.index(name) for name in asked)]], asked)
        for id_, asked in fold.population_of.items()
    }
    return {pair: probabilities[pair[0]] for pair in fold.asked}


def _on_tests(fold: Fold) -> Mapping[str, BranchOptions]:
    """Log-probs of the test items' options, nats: of the base, and of each branch."""

    def compute() -> dict[str, BranchOptions]:
        items = [fold.task.by_id[id_] for id_ in fold.test]
        branches = list(learned_directions(fold).values())
        read = read_options(fold.model, items, branches, fold.readout)
        return {
            item.id: one.log_probs().double().cpu().numpy()
            for item, one in zip(items, read, strict=True)
        }

    return fold.once("branches on tests", compute)
