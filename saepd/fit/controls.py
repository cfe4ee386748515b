"""Controls: what a result must beat before it says anything about the chosen features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct
from saepd.features.config import Contrast
from saepd.features.encode import Pairs
from saepd.features.select import mean_difference

if TYPE_CHECKING:
    from sae_lens import SAE


def random_latents(direction: Direction, pairs: Pairs, seed: int) -> Direction:
    """The same direction made of other latents: drawn among those that fire, values shuffled.

    The vector is scaled to the norm of the original, so that only the choice of latents differs.

    Args:
        direction: The direction that is compared with it.
        pairs: The feedback's activations, which say what fires.
        seed: Seed of the draw of latents and of the shuffle of values.

    Raises:
        InputError: the direction is not made of latents.
    """
    edit = direction.edit
    if not isinstance(edit, EditLatents):
        raise InputError(
            f"direction {direction.perspective!r} is not made of latents, so none can be drawn in "
            "their place: give one that edits latents"
        )
    generator = torch.Generator().manual_seed(seed)
    fires = (pairs.density > 0).clone()
    fires[edit.latents.to(fires.device)] = False
    pool = fires.nonzero().squeeze(-1)
    n = min(len(edit.latents), len(pool))
    chosen = pool[torch.randperm(len(pool), generator=generator)[:n]]
    order = torch.randperm(len(edit.latents), generator=generator)[:n]
    values = None if edit.values is None else edit.values[order.to(edit.values.device)]
    other = replace(direction, edit=EditLatents(edit.sae, chosen, values, edit.mode))
    # At one strength, so that a direction with coefficient 0 has a random partner too.
    before, after = direction.scaled(1.0).constant, other.scaled(1.0).constant
    if before is None or after is None:
        return other
    return other.scaled(other.coefficient * float(before.norm() / after.norm()))


def dense_difference(pairs: Pairs, direction: Direction, contrast: Contrast) -> Direction:
    """Difference in means of the residual itself, without any SAE, at the direction's place.

    With the contrast of the features it is a control for, so that only the SAE differs.

    Args:
        pairs: The feedback's activations.
        direction: The direction that is compared with it.
        contrast: What the perspective's own feedback is compared with.
    """
    vector = mean_difference(pairs, pairs.residuals, direction.perspective, contrast)
    return Direction(
        perspective=direction.perspective,
        hook_name=direction.hook_name,
        edit=AddVector(vector),
        positions=direction.positions,
        coefficient=direction.coefficient,
        lineage=direction.lineage,
    )


def shuffled_labels(pairs: Pairs, seed: int) -> Pairs:
    """The same pairs with the perspectives dealt out at random.

    Args:
        pairs: The feedback's activations.
        seed: Seed of the draw that deals perspectives out.
    """
    order = torch.randperm(len(pairs.rows), generator=torch.Generator().manual_seed(seed))
    rows = [
        row.model_copy(update={"perspective": pairs.rows[i].perspective})
        for row, i in zip(pairs.rows, order.tolist(), strict=True)
    ]
    return replace(pairs, rows=rows)


def reconstruction_only(sae: SAE[Any], direction: Direction) -> Direction:
    """No steering: the activation is replaced by the SAE's reconstruction, error term lost."""
    return Direction(
        perspective=direction.perspective,
        hook_name=direction.hook_name,
        edit=Reconstruct(sae),
        positions=direction.positions,
        lineage=direction.lineage,
    )
