"""How each option's log-likelihood answers to a small push of the residual stream.

The gradient at the unsteered model is the first-order effect of any direction at its site: its
product with a decoder row is what one unit of that latent does to each option. It depends on the
questions only, so it is computed once and serves every perspective, every draw of feedback and
every choice of latents. Gradients at a model that some vector steers already say the same of what
is added to that vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan, PositionedEdit, split_at
from saepd.branches.engine.reference import ReferencePack
from saepd.branches.engine.turns import gradients_of_scores, pack_gradients
from saepd.branches.run import AnyPack, CapturedPrompts, capture_prompts
from saepd.common.errors import InputError
from saepd.directions.gate import Gate
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import hook_point
from saepd.models.batching import Progress
from saepd.models.in_use import using

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# How many steered runs of a prompt keep what their gradients need at once, where it runs alone.
_AT_ONCE = 7


Vectors: TypeAlias = Float[Tensor, "vectors sites d_model"]
_Result = TypeVar("_Result")


class OptionGradients(NamedTuple):
    """Of one prompt's continuations, steered by each of some vectors.

    Attributes:
        log_probs: Of each continuation, without steering and then under each vector, nats.
        gradients: Nats per residual unit added at every edited position of each site.
    """

    log_probs: Float[Tensor, "branches continuations"]
    gradients: Float[Tensor, "vectors continuations sites d_model"]


class _Probe:
    """An edit that adds to each prompt a vector of its own."""

    gate: Gate | None = None

    def __init__(
        self, perspective: str, hook_name: str, positions: str, vectors: Float[Tensor, "batch d"]
    ) -> None:
        self.perspective, self.hook_name, self.positions = perspective, hook_name, positions
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
        continuations: Of each prompt.
        hook_name: The site.
        positions: Where the vector is added; see `saepd.models.positions`.
        progress: Told now and then how many prompts are done, and of how many.

    Returns:
        Of each prompt, the gradients at one vector: none.

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
        captured: From `saepd.branches.run.capture_prompts`, with continuations.
        vectors: Of each prompt, what is added in each of its branches at each site; prompts may
            have different numbers of branches.
        hook_names: The sites, none of them below the one that prompts were captured for.
        positions: Where vectors are added; see `saepd.models.positions`.
        progress: Told now and then how many prompts are done, and of how many.

    Raises:
        InputError: prompts that were captured without continuations, or for later sites or
            positions.
    """

    def run(pack: AnyPack, own: Sequence[Vectors]) -> list[OptionGradients]:
        if isinstance(pack, Pack):
            return _side_by_side(captured.model, pack, own, hook_names, positions)
        return _alone(captured.model, pack, own, hook_names, positions)

    return _of_each_pack(captured, vectors, hook_names, positions, run, progress)


def scores_at(
    captured: CapturedPrompts,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    *,
    positions: str = DEFAULT_POSITIONS,
    progress: Progress | None = None,
) -> list[Float[Tensor, "branches continuations"]]:
    """``log_probs`` of `gradients_at`, without gradients; arguments and errors as there."""

    def run(pack: AnyPack, own: Sequence[Vectors]) -> list[Tensor]:
        with torch.inference_mode():
            padded = _padded(captured.model, own)
            scores = pack.scores(_plan(captured.model, padded, hook_names, positions))
        return [row[: 1 + len(vector)].cpu() for row, vector in zip(scores, own, strict=True)]

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
    found: dict[int, _Result] = {}
    for indices, pack in captured.packs:
        if pack.texts is None:
            raise InputError("these prompts were captured without continuations: give them")
        own = [vectors[i] for i in indices]
        with using(captured.model):
            if isinstance(pack, Pack) and pack.as_copies:
                results = run(pack, own)
            else:
                # Rows behind a cache have lost their gradients, and are no longer one a prompt:
                # each prompt runs anew, alone.
                results = []
                for i, text, vector in zip(indices, pack.texts, own, strict=True):
                    alone = ReferencePack([captured.rows[i]], [text], block, (positions,))
                    results += run(alone, [vector])
        found.update(zip(indices, results, strict=True))
        if progress is not None:
            progress(len(found), len(vectors))
    return [found[i] for i in range(len(vectors))]


def _padded(
    model: TransformerBridge, vectors: Sequence[Vectors]
) -> Float[Tensor, "batch vectors sites d_model"]:
    """Every prompt's vectors, and zeros behind those of prompts that have fewer."""
    device, most = next(model.original_model.parameters()).device, max(map(len, vectors))
    pad = torch.nn.functional.pad
    return torch.stack([pad(own, (0, 0, 0, 0, 0, most - len(own))) for own in vectors]).to(device)


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


def _side_by_side(
    model: TransformerBridge,
    pack: Pack,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    positions: str,
) -> list[OptionGradients]:
    """The gradients of a pack whose branches are copies of columns."""
    padded = _padded(model, vectors)
    mask = pack.masks(_plan(model, padded, hook_names, positions))[positions]
    sites = [hook_point(model, name) for name in hook_names]
    steered = pack_gradients(pack, padded, [len(own) for own in vectors], sites, mask)
    if all(len(own) and not bool(own[0].any()) for own in vectors):
        base = [scores[:1] for scores, _ in steered]
    else:
        with torch.inference_mode():
            base = [row.cpu() for row in pack.scores(Plan(model, []))]
    return [
        OptionGradients(torch.cat([unsteered, scores]), gradients)
        for unsteered, (scores, gradients) in zip(base, steered, strict=True)
    ]


def _alone(
    model: TransformerBridge,
    pack: ReferencePack,
    vectors: Sequence[Vectors],
    hook_names: Sequence[str],
    positions: str,
) -> list[OptionGradients]:
    """The gradients of one prompt, from runs of whole texts, a few vectors at a time."""
    log_probs, gradients = [], []
    for some in _padded(model, vectors).split(_AT_ONCE, dim=1):
        pushed = some.detach().requires_grad_()
        [scores] = pack.scores(_plan(model, pushed, hook_names, positions))
        log_probs.append(scores.detach().cpu()[bool(log_probs) :])
        gradients.append(gradients_of_scores(scores[1:].unsqueeze(0), pushed)[0])
    return [OptionGradients(torch.cat(log_probs), torch.cat(gradients))]
