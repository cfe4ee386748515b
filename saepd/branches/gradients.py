"""How each option's log-likelihood answers to a small push of the residual stream.

The gradient at the unsteered model is the first-order effect of any direction at its site: its
product with a decoder row is what one unit of that latent does to each option. It depends on the
questions only, so it is computed once and serves every perspective, every draw of feedback and
every choice of latents. Gradients at a model that some vector steers already say the same of what
is added to that vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan, PositionedEdit, split_at
from saepd.branches.engine.reference import ReferencePack
from saepd.branches.engine.turns import (
    Vectors,
    gradients_of_scores,
    pack_gradients,
    pack_scores,
)
from saepd.branches.pack_results import AnyPack
from saepd.common.errors import InputError
from saepd.directions.gate import Gate
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import hook_point
from saepd.models.batching import Progress
from saepd.models.in_use import using

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

# How many steered runs of a prompt keep what their gradients need at once, where it runs alone.
_AT_ONCE = 7


_Result = TypeVar("_Result")


class OptionGradients(NamedTuple):
    """What one prompt's continuations come to under each of some vectors.

    Attributes:
        log_probs: Log-likelihood of each continuation under each vector, nats.
        gradients: Nats per residual unit added at every edited position of each site.
    """

    log_probs: Float[Tensor, "vectors continuations"]
    gradients: Float[Tensor, "vectors continuations sites d_model"]


class _Probe:
    """An edit that adds to each prompt a vector of its own."""

    gate: Gate | None = None

    def __init__(
        self, perspective: str, hook_name: str, positions: str, vectors: Float[Tensor, "batch d"]
    ) -> None:
        self.perspective, self.positions = perspective, positions
        self.hook_name = self.reads = hook_name
        self.block, self.vectors = int(hook_name.split(".")[1]), vectors

    def delta(self, h: Float[Tensor, "batch columns d"]) -> Float[Tensor, "batch columns d"]:
        return self.vectors.unsqueeze(1).to(h).expand_as(h)


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
        continuations: The texts that are scored behind each prompt.
        hook_name: The site.
        positions: Where the vector is added; see `saepd.models.positions`.
        progress: Told now and then how many prompts are done, and of how many.

    Returns:
        For each prompt, the gradients where nothing is added.

    Raises:
        InputError: prompts or continuations that cannot be run, or an unknown site.
    """
    captured = capture_prompts(
        model, prompts, hook_name, positions=positions, continuations=continuations
    )
    nothing = torch.zeros(1, 1, int(model.cfg.d_model))
    return gradients_at(
        captured, [nothing] * len(prompts), [hook_name], positions=positions, progress=progress
    )


def gradients_at(
    captured: CapturedPrompts,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    *,
    positions: str = DEFAULT_POSITIONS,
    progress: Progress | None = None,
) -> list[OptionGradients]:
    """Log-likelihood of captured continuations under vectors, and its gradients there.

    Args:
        captured: From `saepd.branches.captured.capture_prompts`, with continuations.
        vectors: For each prompt, what is added in each of its branches at each site; prompts may
            have different numbers of branches.
        hook_names: The sites, none of them below the one that prompts were captured for.
        positions: Where vectors are added; see `saepd.models.positions`.
        progress: Told now and then how many prompts are done, and of how many.

    Raises:
        InputError: prompts that were captured without continuations, or for later sites or
            positions.
    """

    def run(pack: AnyPack, pack_vectors: Sequence[Vectors]) -> list[OptionGradients]:
        if isinstance(pack, Pack):
            places = _places(captured.model, pack, hook_names, positions)
            return list(starmap(OptionGradients, pack_gradients(pack, pack_vectors, *places)))
        return [_alone(captured.model, pack, pack_vectors, hook_names, positions)]

    return _of_each_pack(captured, vectors, hook_names, positions, run, progress)


def scores_at(
    captured: CapturedPrompts,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    *,
    positions: str = DEFAULT_POSITIONS,
    progress: Progress | None = None,
) -> list[Float[Tensor, "vectors continuations"]]:
    """``log_probs`` of `gradients_at`, without gradients; arguments and errors as there."""

    def run(pack: AnyPack, pack_vectors: Sequence[Vectors]) -> list[Tensor]:
        if isinstance(pack, Pack):
            return pack_scores(
                pack, pack_vectors, *_places(captured.model, pack, hook_names, positions)
            )
        with torch.inference_mode():
            [scores] = pack.scores(
                _plan(captured.model, pack_vectors[0].unsqueeze(0), hook_names, positions)
            )
        return [scores[1:].cpu()]

    return _of_each_pack(captured, vectors, hook_names, positions, run, progress)


def _of_each_pack(
    captured: CapturedPrompts,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    positions: str,
    run: Callable[[AnyPack, Sequence[Vectors]], list[_Result]],
    progress: Progress | None,
) -> list[_Result]:
    block, _ = split_at(captured.model, hook_names)
    by_prompt: dict[int, _Result] = {}
    for indices, pack in captured.packs:
        if pack.texts is None:
            raise InputError("these prompts were captured without continuations: give them")
        pack_vectors = [vectors[i] for i in indices]
        with using(captured.model):
            if isinstance(pack, Pack) and pack.as_copies:
                results = run(pack, pack_vectors)
            else:
                # Rows behind a cache have lost their gradients, and are no longer one a prompt:
                # each prompt runs anew, alone.
                results = []
                for i, text, vector in zip(indices, pack.texts, pack_vectors, strict=True):
                    alone = ReferencePack([captured.rows[i]], [text], block, (positions,))
                    results += run(alone, [vector])
        by_prompt.update(zip(indices, results, strict=True))
        if progress is not None:
            progress(len(by_prompt), len(vectors))
    return [by_prompt[i] for i in range(len(vectors))]


def _places(
    model: TransformerBridge, pack: Pack, hook_names: Sequence[str], positions: str
) -> tuple[list[HookPoint], Bool[Tensor, "batch columns"]]:
    """The sites' own modules, and the columns of a pack that vectors are added to."""
    nothing = torch.zeros(len(pack.prefix.columns.tokens), 1, len(hook_names), model.cfg.d_model)
    mask = pack.masks(_plan(model, nothing, hook_names, positions))[positions]
    return [hook_point(model, name) for name in hook_names], mask


def _plan(
    model: TransformerBridge,
    vectors: Float[Tensor, "batch vectors sites d_model"],
    hook_names: Sequence[str],
    positions: str,
) -> Plan:
    branches: list[list[PositionedEdit]] = [
        [
            _Probe(f"vector {number}", name, positions, vectors[:, number, site])
            for site, name in enumerate(hook_names)
        ]
        for number in range(vectors.shape[1])
    ]
    return Plan(model, branches)


def _alone(
    model: TransformerBridge,
    pack: ReferencePack,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    positions: str,
) -> OptionGradients:
    """The gradients of one prompt, from runs of whole texts, a few vectors at a time."""
    [prompt_vectors], [texts] = vectors, pack.texts or [[]]
    log_probs = [torch.empty(0, len(texts))]
    gradients = [torch.empty(0, len(texts), *prompt_vectors.shape[1:])]
    device = next(model.original_model.parameters()).device
    for some in prompt_vectors.split(_AT_ONCE) if len(prompt_vectors) else ():
        pushed = some.detach().to(device).unsqueeze(0).requires_grad_()
        [scores] = pack.scores(_plan(model, pushed, hook_names, positions))
        log_probs.append(scores[1:].detach().cpu())
        gradients.append(gradients_of_scores(scores[1:].unsqueeze(0), pushed)[0])
    return OptionGradients(torch.cat(log_probs), torch.cat(gradients))
