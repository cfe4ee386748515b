"""Merges of the chosen latents' branches: one answer for everybody, or own branch with the base.

Branches are read before they are merged: the base with the readout that everybody's feedback fits,
each perspective's branch with its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from saepd.evaluation.fold import Fold, Predictions
from saepd.evaluation.methods.nulls import POOLED_RIDGE, fit_biases, read_biased
from saepd.evaluation.methods.steered import Steered, mean_differences
from saepd.feedback.schema import Item
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.readout.softmax import SoftmaxWeights

COMPARED_OPERATORS = ("pluralistic", "mixture", "product", "cad", "dcd")


def merge_perspectives(fold: Fold, config: MergeConfig) -> Predictions:
    """The base and the branches of those who are asked about an item: one answer for all."""
    steered, base = mean_differences(fold)["selected"], base_readout(fold)
    asked = fold.population_of
    return fold.predict(
        lambda item, _: merged(branch_log_probs(item, steered, base, asked[item.id]), config)
    )


def merge_with_base(fold: Fold, config: MergeConfig) -> Predictions:
    """The base and one perspective's branch, merged into that perspective's answer."""
    steered, base = mean_differences(fold)["selected"], base_readout(fold)
    return fold.predict(
        lambda item, name: merged(branch_log_probs(item, steered, base, [name]), config)
    )


def base_readout(fold: Fold) -> SoftmaxWeights:
    """The readout of the unsteered model, fitted on everybody's feedback."""
    return fold.once("base readout", lambda: fit_biases(fold, fold.feedback, POOLED_RIDGE))


def branch_log_probs(
    item: Item, steered: Steered, base: SoftmaxWeights, perspectives: Sequence[str]
) -> Float[np.ndarray, "branches options"]:
    """Log-probs of an item's options, nats: the base's, then those of perspectives' branches."""
    rows = [read_biased(steered.scores[item.id][0], base)]
    rows += [steered.probabilities(item.id, name) for name in perspectives]
    return np.log(np.maximum(np.stack(rows), 1e-30))


def merged(
    log_probs: Float[np.ndarray, "branches options"], config: MergeConfig
) -> Float[np.ndarray, " options"]:
    """Probabilities after a merge."""
    probabilities = merge_branches(torch.from_numpy(log_probs), config).exp().double().numpy()
    return probabilities / probabilities.sum()
