"""What sites of a model hold: token rows in, activations out, in packs of rows of like length.

Whatever reads activations without steering reads them here, so that a row gives the same alone,
padded and in a batch: rows are padded on the left, and their mask and positions are said.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.models.batching import bytes_per_token, in_packs
from saepd.models.identity import check_model
from saepd.models.in_use import using
from saepd.models.positions import prompt_mask
from saepd.models.tokens import PromptBatch, check_embedded, check_lengths, pad_left

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class SiteBatch:
    """What sites hold for some of the rows.

    Attributes:
        model: The language model.
        indices: Index of each of these rows among all that are read.
        prompts: The rows' tokens, left-padded.
        held: Activations by hook name, heads joined, in the model's dtype.
    """

    model: TransformerBridge
    indices: list[int]
    prompts: PromptBatch
    held: dict[str, Float[Tensor, "batch seq width"]]

    @cached_property
    def counted(self) -> Bool[Tensor, "batch seq"]:
        """Positions that the spec ``all`` selects: no padding, special or first token."""
        tokens, attention = self.prompts.tokens, self.prompts.attention
        return prompt_mask("all", tokens, attention, self.model.tokenizer)

    def mean(self, values: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch width"]:
        """Mean over each row's counted positions; zero for a row without any."""
        counted = self.counted.to(values)
        weights = counted / counted.sum(1, keepdim=True).clamp(min=1)
        return torch.einsum("bt,btd->bd", weights, values)


class _Reached(Exception):  # noqa: N818
    """The forward pass has come as far as it is needed."""


def read_site(
    model: TransformerBridge,
    hook_names: Sequence[str],
    rows: Sequence[list[int]],
    collect: Callable[[SiteBatch], Sequence[_Result]],
    *,
    collected_bytes: int = 0,
) -> list[_Result]:
    """Run token rows up to the highest of some sites, and collect from what the sites hold.

    Rows run in packs of like length, as many at once as memory holds; a pack that turns out to be
    too large is halved.

    Args:
        model: The language model.
        hook_names: The sites, such as ``blocks.15.hook_resid_post``.
        rows: Token ids of each text, as `saepd.models.tokens.prompt_ids` gives them.
        collect: Called for each pack, in inference mode; returns one result for each of its rows.
        collected_bytes: What ``collect`` itself needs for each token, such as its latents.

    Returns:
        The results in the order of the rows.

    Raises:
        InputError: a row that is longer than the model's context, a site that the model does not
            have or never computes, or memory that does not hold a single row.
    """
    check_model(model)
    check_embedded(model, rows)
    check_lengths(model, rows)
    points = model.hook_dict
    for name in hook_names:
        if name not in points:
            raise InputError(
                f"{model.cfg.model_name} has no site {name!r}: {residual_sites(model)}"
            )
    share = 1 + collected_bytes / bytes_per_token(model)

    def run(indices: list[int]) -> list[_Result]:
        results: list[_Result] = []
        with using(model, steered=True), torch.inference_mode():
            for chosen in _run_together(model, indices, rows):
                prompts = pad_left(model, [rows[i] for i in chosen])
                held = _site_activations(model, hook_names, prompts)
                results += collect(SiteBatch(model, chosen, prompts, held))
        return results

    return in_packs(model, [int(share * len(row)) for row in rows], run)


def residual_sites(model: TransformerBridge) -> str:
    """Which sites a model has for sure, as messages say it."""
    last = model.cfg.n_layers - 1
    return f"its blocks are 0..{last}, their residual sites blocks.N.hook_resid_post"


def _run_together(
    model: TransformerBridge, indices: list[int], rows: Sequence[list[int]]
) -> Iterator[list[int]]:
    """A pack's rows: all at once, or only equally long ones where positions cannot be said."""
    if "position_ids" in _arguments(model):
        yield indices
    else:
        for _, group in groupby(indices, key=lambda i: len(rows[i])):
            yield list(group)


def _site_activations(
    model: TransformerBridge, hook_names: Sequence[str], prompts: PromptBatch
) -> dict[str, Tensor]:
    """What each site holds; the forward pass ends where the last of them has been seen."""
    held: dict[str, Tensor] = {}

    def storing(name: str) -> Callable[..., None]:
        def store(value: Tensor, hook: object) -> None:
            # Heads stand side by side, as SAELens joins them too.
            held[name] = value.flatten(2)
            if len(held) == len(set(hook_names)):
                raise _Reached

        return store

    said = {
        "attention_mask": prompts.attention,
        "position_ids": prompts.position_ids,
        "use_cache": False,
    }
    taken = {name: value for name, value in said.items() if name in _arguments(model)}
    with (
        model.hooks(fwd_hooks=[(name, storing(name)) for name in set(hook_names)]),
        suppress(_Reached),
    ):
        model.original_model(input_ids=prompts.tokens, **taken)
    missing = [name for name in hook_names if name not in held]
    if missing:
        raise InputError(
            f"{model.cfg.model_name} never computes {', '.join(missing)}: {residual_sites(model)}"
        )
    return held


def _arguments(model: TransformerBridge) -> Any:
    return inspect.signature(model.original_model.forward).parameters
