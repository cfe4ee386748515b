"""Answers of branches whose directions carry a readout that was fitted together with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.models.wording import ReadoutConfig
from saepd.readout.softmax import SoftmaxWeights, option_features


def fitted_weights(
    branches: Sequence[Sequence[Direction]], config: ReadoutConfig | None = None
) -> list[SoftmaxWeights] | None:
    """Weights of the base's readout and of every branch's, or None where no direction has one.

    Args:
        branches: The directions of each branch.
        config: How options will be read; any way if None.

    Raises:
        InputError: only some directions have a readout, those of one branch have different ones,
            two branches disagree about the base, or they were fitted with another config.
    """
    flat = [direction for branch in branches for direction in branch]
    readouts = [direction.readout for direction in flat if direction.readout is not None]
    if not readouts:
        return None
    if len(readouts) < len(flat):
        without = next(direction.perspective for direction in flat if direction.readout is None)
        raise InputError(
            f"direction {without!r} has no fitted readout, and others have one: read them apart, "
            "or all of them as the model scores them, in Python with raw=True"
        )
    for direction, readout in zip(flat, readouts, strict=True):
        if config is not None and readout.config != config:
            raise InputError(
                f"direction {direction.perspective!r} was fitted with another readout, "
                f"{readout.config}: read with the same one"
            )
        if not np.array_equal(readout.base, readouts[0].base):
            raise InputError(
                f"directions {flat[0].perspective!r} and {direction.perspective!r} were fitted "
                "apart, and do not agree how the base is read: read them apart"
            )
    weights = [readouts[0].base]
    for branch in branches:
        of_branch = [direction.readout for direction in branch if direction.readout is not None]
        if any(readout != of_branch[0] for readout in of_branch):
            raise InputError(
                f"the branch of direction {branch[0].perspective!r} has several readouts: give "
                "directions that were fitted together, or read with raw=True in Python"
            )
        weights.append(of_branch[0].own)
    return weights


def as_fitted(
    scores: Float[Tensor, "branches options"], weights: Sequence[SoftmaxWeights]
) -> Float[Tensor, "branches options"]:
    """Log-probs over the options as the readouts give them, in nats and float64.

    See `saepd.directions.fitted_readout.FittedReadout` for the formula.

    Args:
        scores: Scores of the options under the base, and under every branch as it ran, nats.
        weights: Weights of each row's readout, the base's first.
    """
    rows = scores.detach().double().cpu().numpy()
    # An option without any probability leaves no number, and whoever reads it says so.
    with np.errstate(invalid="ignore"):
        read = [
            option_features(rows[0], len(row_weights) - 2) @ row_weights + row - rows[0]
            for row, row_weights in zip(rows, weights, strict=True)
        ]
    return torch.from_numpy(np.stack(read)).log_softmax(-1)
