"""Read learned directions as they were learned: their readout, on small differences blown up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from saepd.common.errors import InputError
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.direction import Direction
from saepd.feedback.schema import Item
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import OptionScores, read_options
from saepd.readout.softmax import SoftmaxWeights, option_features

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Part of its coefficient at which a direction runs when it is read to first order.
_FIRST_ORDER = 0.02


def check_precision(model: TransformerBridge) -> None:
    """Refuse models whose numbers are too coarse for differences at a part of a coefficient.

    Raises:
        InputError: the model computes in half precision.
    """
    dtype = next(model.original_model.parameters()).dtype
    if dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        raise InputError(
            f"learned scales are read as small differences, which {name} drowns: load the model "
            "in float32"
        )


def is_learned(directions: Directions) -> bool:
    """Whether there are directions, and all of them are from `learn_directions`."""
    directions = as_directions(directions)
    return bool(directions) and all("learned" in d.lineage for d in directions)


def read_learned(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Directions,
    config: ReadoutConfig | None = None,
) -> list[OptionScores]:
    """What learned directions answer, read as they were learned.

    Scales are learned together with a temperature and position biases, and only to first order:
    the raw scores of a steered branch are swamped by what the base model prefers anyway. So each
    direction runs at a small part of its coefficient, and the difference it makes is blown up
    again, on top of the base model's scores as the perspective's readout has them.

    Args:
        model: The language model.
        items: Items with options.
        directions: What `learn_directions` returns, or what was loaded from disk.
        config: How to read, which must be how it was learned.

    Returns:
        Of each item, log-probs of the options under the base model and every direction.

    Raises:
        InputError: a direction that was not learned, or with another readout, a model in half
            precision, or whatever `read_options` refuses.
    """
    config, directions = config or ReadoutConfig(), as_directions(directions)
    check_precision(model)
    if not is_learned(directions):
        raise InputError("these directions were not learned: read them with read_options")
    weights = _readouts(directions, config)
    small = [d.scaled(_FIRST_ORDER * d.coefficient) for d in directions]
    found = []
    for read in read_options(model, items, small, config):
        scores = read.scores.double().cpu().numpy()
        moved = (scores - scores[0]) / _FIRST_ORDER
        raised = [
            option_features(scores[0], len(own) - 2) @ own + move
            for own, move in zip(weights, moved, strict=True)
        ]
        log_probs = torch.from_numpy(np.stack(raised)).log_softmax(-1)
        found.append(replace(read, scores=log_probs.to(read.scores)))
    return found


def _readouts(directions: Sequence[Direction], config: ReadoutConfig) -> list[SoftmaxWeights]:
    """Weights of the base's readout and of each direction's, as their lineages tell them."""
    base: list[SoftmaxWeights] = []
    own: list[SoftmaxWeights] = []
    for direction in directions:
        where = f"direction {direction.perspective!r}"
        try:
            readout = direction.lineage["config"]["readout"]
            base.append(np.array(direction.lineage["learned"]["base_readout"], dtype=float))
            own.append(np.array(direction.lineage["learned"]["readout"], dtype=float))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: its lineage does not tell its readout: {error}") from error
        if readout != asdict(config):
            raise InputError(
                f"{where} was learned with another readout, {readout}: read with the same one"
            )
    weights = [base[0], *own]
    if any(w.ndim != 1 or len(w) < 3 or not np.isfinite(w).all() for w in weights):
        raise InputError("the lineage of learned directions holds a readout that is none")
    return weights
