"""How each option's log-likelihood answers to a small push of the residual stream.

The gradient at the unsteered model is the whole first-order effect of any direction at a site:
its product with a decoder row is what one unit of that latent does to each option. It depends on
the questions only, so it is computed once and serves every perspective, every draw of feedback and
every choice of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.pack import Pack, longest, pack_costs
from saepd.branches.engine.plan import Plan, check_continuations, check_prompts, split_at
from saepd.branches.engine.reference import ReferencePack
from saepd.branches.proof import is_proven
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import check_site, hook_point
from saepd.models.batching import Progress, in_packs
from saepd.models.in_use import using

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class OptionGradients(NamedTuple):
    """Of one prompt's continuations.

    Attributes:
        log_probs: Of each continuation without steering, nats.
        gradients: Nats per residual unit of a vector added at every edited position.
    """

    log_probs: Float[Tensor, " continuations"]
    gradients: Float[Tensor, "continuations d_model"]


class _Probe:
    """An edit that adds to each prompt a vector of its own."""

    def __init__(self, positions: str, vectors: Float[Tensor, "batch d_model"]) -> None:
        self.positions, self.vectors = positions, vectors

    def delta(self, h: Float[Tensor, "batch columns d_model"]) -> Float[Tensor, ...]:
        return self.vectors.unsqueeze(1).to(h)


def option_gradients(
    model: TransformerBridge,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    hook_name: str,
    *,
    positions: str = DEFAULT_POSITIONS,
    progress: Progress | None = None,
) -> list[OptionGradients]:
    """Log-likelihood of every continuation, and its gradient by what a direction adds at a site.

    Args:
        model: The language model.
        prompts: Texts of any lengths.
        continuations: Of each prompt.
        hook_name: The site.
        positions: Where the vector is added; see `saepd.models.positions`.
        progress: Told now and then how many prompts are done, and of how many.

    Raises:
        InputError: prompts or continuations that cannot be run, or an unknown site.
    """
    check_site(model, hook_name)
    rows = check_prompts(model, prompts)
    texts = check_continuations(model, prompts, rows, continuations)
    block, _ = split_at(model, [hook_name])
    width, device = int(model.cfg.d_model), next(model.original_model.parameters()).device
    point = hook_point(model, hook_name)

    def gradients_of(
        run_on: Callable[[Plan], list[Tensor]], start: Float[Tensor, "batch d_model"]
    ) -> list[OptionGradients]:
        vectors = start.detach().requires_grad_()
        plan = Plan(model, [])
        plan.first_wide_block, plan.widened_at = split_at(model, [hook_name])
        plan.edits[point] = [(0, _Probe(positions, vectors))]
        scores = [row[0] for row in run_on(plan)]
        gradients = torch.zeros(len(scores), max(map(len, scores)), width)
        for option in range(gradients.shape[1]):
            total = torch.stack([row[option] for row in scores if option < len(row)]).sum()
            [gradient] = torch.autograd.grad(total, vectors, retain_graph=True)
            gradients[:, option] = gradient.cpu()
        return [
            OptionGradients(row.detach().cpu(), gradient[: len(row)])
            for row, gradient in zip(scores, gradients, strict=True)
        ]

    def run(indices: list[int]) -> list[OptionGradients]:
        chosen, own = [rows[i] for i in indices], [texts[i] for i in indices]
        start = torch.zeros(len(indices), width, device=device)
        if is_proven(model, longest(chosen, own)):
            pack = Pack.capture(model, chosen, own, block, [positions])
            # Rows behind a cache have lost their gradients.
            if pack.as_copies:
                return gradients_of(pack.scores, start)
        found: list[OptionGradients] = []
        for row, text, vector in zip(chosen, own, start.split(1), strict=True):
            one = ReferencePack.capture(model, [row], [text], block, [positions])
            found += gradients_of(one.scores, vector)
        return found

    def run_alone(indices: list[int]) -> list[OptionGradients]:
        with using(model):
            return run(indices)

    costs = pack_costs(model, rows, texts, [positions], 2)
    return in_packs(model, costs, run_alone, progress=progress)
