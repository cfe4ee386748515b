"""Hugging Face's own forward on some columns of a batch, whole or up to a block."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.engine.columns import Columns, additive
from saepd.branches.engine.native import native_modules

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import DynamicCache


# How many logits are normalised at once.
_LOGITS_AT_ONCE = 2**19


def forward(
    model: TransformerBridge,
    columns: Columns,
    chosen: slice,
    cache: DynamicCache | None,
    *,
    read: slice | Int[Tensor, " read"] | Int[Tensor, "rows read"],
) -> Float[Tensor, "rows read vocab"]:
    """Hugging Face's forward on some columns, with logits only at those that are read."""
    texts_behind = columns.n_prompt < columns.tokens.shape[1]
    attention: Any = columns.real[:, : chosen.stop].long()
    if texts_behind or not isinstance(read, slice):
        # What stands side by side must not see each other, which only a full mask can say.
        dtype = next(model.original_model.parameters()).dtype
        attention = additive(columns.visible[:, chosen, : chosen.stop], dtype)

    kept: list[Tensor] = []

    def keep_read(_module: object, _args: object, h: Tensor) -> Tensor:
        if isinstance(read, Tensor) and read.ndim == 2:
            kept.append(h.take_along_dim(read.to(h.device).unsqueeze(-1), dim=1))
        else:
            kept.append(h[:, read])
        # Some models give their output the shape of their input again, whatever it was.
        return h[:, : chosen.stop - chosen.start]

    def take_up_kept(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (kept.pop(), *args[1:])

    handles = [
        model.ln_final.register_forward_hook(keep_read),
        model.unembed.register_forward_pre_hook(take_up_kept),
    ]
    try:
        with native_modules(model):
            output = model.original_model(
                input_ids=columns.tokens[:, chosen],
                attention_mask=attention,
                position_ids=columns.position_ids[:, chosen],
                past_key_values=cache,
                use_cache=cache is not None,
            )
    finally:
        for handle in handles:
            handle.remove()
    return output.logits


def normaliser(logits: Float[Tensor, "*positions vocab"]) -> Float[Tensor, "*positions"]:
    """Log of the summed exponentials of each position's logits, in nats.

    Few positions at a time, so that what lies between stays in a processor's cache.
    """
    few = logits.flatten(0, -2).split(max(1, _LOGITS_AT_ONCE // logits.shape[-1]))
    return torch.cat([some.float().logsumexp(-1) for some in few]).view(logits.shape[:-1])


class _Reached(Exception):  # noqa: N818
    """The forward pass has come as far as it is needed."""


def run_to(
    model: TransformerBridge,
    columns: Columns,
    chosen: slice,
    cache: DynamicCache | None,
    block: int,
) -> tuple[Float[Tensor, "batch columns d_model"], bool]:
    """Run the blocks below ``block`` on some columns.

    Returns:
        What the last of them gave, before its output's own hooks; and whether it was in a tuple.
    """
    last = model.blocks[block - 1]
    stored: list[Any] = []

    def store(_module: object, args: tuple[Tensor, ...]) -> None:
        stored.append(args[0])

    def stop(_module: object, _args: object, output: Any) -> None:
        stored.append(isinstance(output, tuple))
        raise _Reached

    with ExitStack() as stack:
        stack.callback(last.hook_out.register_forward_pre_hook(store).remove)
        stack.callback(last.register_forward_hook(stop).remove)
        with suppress(_Reached):
            forward(model, columns, chosen, cache, read=slice(-1, None))
    hidden, in_tuple = stored
    return hidden, in_tuple
