"""How much a direction writes, beside what it writes into: the relative dose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from saepd.branches.engine.plan import check_prompts
from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.applying import check_fits
from saepd.directions.direction import Direction
from saepd.models.sites import SiteBatch, read_site

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def relative_dose(
    model: TransformerBridge,
    directions: Directions,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> list[float]:
    """Norm of what each direction writes over the norm of the residual it is written into.

    Both are means over every position of the prompts that the spec ``all`` selects, wherever the
    direction itself acts: so doses of directions with other positions can be compared, and a
    marker need not occur in neutral text. A direction's own coefficient is part of its dose, and so
    is what its gate says of each prompt; the doses of its sites add up.

    Args:
        model: The language model.
        directions: One direction or several, or a fit.
        prompts: Texts that have nothing to do with the feedback.

    Returns:
        One dose for each direction, unit-free and at least 0.

    Raises:
        InputError: a direction that does not fit the model, no prompts, an empty or too long one,
            or none with a position besides special tokens and its first one.
    """
    directions = as_directions(directions)
    if not directions:
        return []
    check_fits(model, directions)
    rows = check_prompts(model, prompts)
    parts = [part for direction in directions for part in direction.parts]

    def collect(batch: SiteBatch) -> list[torch.Tensor]:
        norms = []
        for direction in parts:
            h = batch.held[direction.hook_name].float()
            written = direction.delta(batch.held[direction.reads].float()).norm(dim=-1)
            if (gate := direction.gate) is not None:
                written = written * gate.amount(gate.reading(batch)).abs().unsqueeze(-1)
            norms += [written, h.norm(dim=-1)]
        counted = batch.counted
        # [norm sums..., counted positions] of each row.
        sums = [(norm * counted).sum(-1) for norm in norms]
        return list(torch.stack([*sums, counted.sum(-1).float()], -1).double().cpu())

    gates = [direction.gate for direction in directions if direction.gate is not None]
    sites = [name for one in parts for name in (one.hook_name, one.reads)]
    sites = list(dict.fromkeys([*sites, *(gate.hook_name for gate in gates)]))
    total = torch.stack(read_site(model, sites, rows, collect)).sum(0)
    if not total[-1]:
        raise InputError("the prompts have no position to measure a dose at: give longer texts")
    written, held = total[:-1].reshape(-1, 2).unbind(-1)
    doses = iter((written / held).tolist())
    return [sum(next(doses) for _ in direction.parts) for direction in directions]


def scale_to_dose(
    model: TransformerBridge,
    together: Directions,
    dose: float,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> list[Direction]:
    """Multiply all directions of one branch by the factor that gives them a relative dose.

    The doses of directions that act together add up, whatever sites they are at.

    Args:
        model: The language model.
        together: One direction, or several that act together; they keep their shares of the whole.
        dose: What `relative_dose` of them is to sum to; positive.
        prompts: Texts that have nothing to do with what is steered.

    Raises:
        InputError: a dose that is not positive, directions that write nothing on the prompts, or
            whatever `relative_dose` refuses.
    """
    check_number("the relative dose", dose, above=0)
    together = as_directions(together)
    current_dose = sum(relative_dose(model, together, prompts))
    if current_dose == 0:
        names = " + ".join(direction.perspective for direction in together)
        raise InputError(
            f"direction {names!r} writes nothing on neutral prompts, so no strength gives it a "
            "dose: add to its latents, or clamp them, instead"
        )
    return [dose / current_dose * direction for direction in together]
