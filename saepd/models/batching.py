"""How many prompts run together: sorted by length, packed to a budget, halved when memory ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch

from saepd.common.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# On a processor, more tokens at once than this are no faster each.
_ENOUGH_ON_CPU = 4096
_ENOUGH = 65536
_SHARE_OF_MEMORY = 0.5
# What starting one more pack costs, in tokens, where 4096 run at once; the more do, the more.
_COST_OF_A_PACK = 64
# How much of a pack may be padding.
_IDLE = 0.25

_Result = TypeVar("_Result")
# Is told how many pieces of work are done, and of how many.
Progress: TypeAlias = Callable[[int, int], None]


def in_packs(
    model: TransformerBridge,
    costs: Sequence[int],
    run: Callable[[list[int]], Sequence[_Result]],
    *,
    progress: Progress | None = None,
) -> list[_Result]:
    """Run work in packs of like size, within what memory holds.

    Args:
        model: The language model; its size and device say what a token costs.
        costs: Cost of each piece of work, in tokens; a pack costs its dearest times its number.
        run: Takes the indices of a pack, returns one result for each.
        progress: Told after each pack how many pieces are done, and of how many.

    Returns:
        The results in the order of ``costs``.

    Raises:
        InputError: memory does not even hold the one piece it ended with.
    """
    budget = token_budget(model)
    results: dict[int, _Result] = {}
    order = _dearest_first(costs)
    start = 0
    while start < len(order):
        indices = order[start : _end_of_pack(costs, order, start, budget)]
        try:
            results.update(zip(indices, run(indices), strict=True))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(indices) == 1:
                raise InputError(
                    f"out of memory with a single prompt of {costs[indices[0]]} tokens over all "
                    "branches: run fewer branches at once, or shorten it"
                ) from error
            budget = len(indices) // 2 * costs[indices[0]]
            warnings.warn(
                f"out of memory: going on with at most {budget} tokens at once", stacklevel=2
            )
            _free()
            continue
        start += len(indices)
        if progress is not None:
            progress(start, len(order))
    return [results[i] for i in range(len(costs))]


def packs(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of like cost, dearest first, each group within the budget."""
    order, start = _dearest_first(costs), 0
    while start < len(order):
        end = _end_of_pack(costs, order, start, budget)
        yield order[start:end]
        start = end


def _dearest_first(costs: Sequence[int]) -> list[int]:
    return sorted(range(len(costs)), key=lambda i: -costs[i])


def _end_of_pack(costs: Sequence[int], order: list[int], start: int, budget: int) -> int:
    """Where the pack ends that starts with the dearest piece left.

    All of a pack cost as much as the dearest. A piece that would idle for most of that waits for
    the next pack, unless what idles is less than a pack costs by itself.
    """
    dearest, idle, end = costs[order[start]], 0, start + 1
    by_itself = max(_COST_OF_A_PACK, int(_COST_OF_A_PACK / _ENOUGH_ON_CPU * budget))
    while end < len(order):
        whole = (end + 1 - start) * dearest
        idle += dearest - costs[order[end]]
        if whole > budget or idle > _IDLE * whole + by_itself:
            break
        end += 1
    return end


def token_budget(model: TransformerBridge) -> int:
    """Tokens that may run at once: what half of the free memory holds, up to where more is idle."""
    device = next(model.original_model.parameters()).device
    if device.type == "cuda":
        free, enough = torch.cuda.mem_get_info(device)[0], _ENOUGH
    else:
        import psutil

        free, enough = psutil.virtual_memory().available, _ENOUGH_ON_CPU
    return max(1, min(enough, int(_SHARE_OF_MEMORY * free / bytes_per_token(model))))


def bytes_per_token(model: TransformerBridge) -> int:
    """What one token holds at a time: two blocks' activations, and a share of the logits.

    Logits are read at few positions and weigh as `LOGITS_PER_TOKEN` of them a token.
    """
    width = next(model.original_model.parameters()).element_size()
    inner = int(getattr(model.cfg, "d_mlp", 0) or 4 * model.cfg.d_model)
    cached = 2 * int(model.cfg.n_layers) * int(model.cfg.d_model)
    return width * (8 * int(model.cfg.d_model) + 4 * inner + cached) + 8 * LOGITS_PER_TOKEN


LOGITS_PER_TOKEN = 16384


def logit_cost(model: TransformerBridge, n_read: int) -> int:
    """What reading the logits of ``n_read`` positions costs, in tokens."""
    return -(-n_read * int(model.cfg.d_vocab) // LOGITS_PER_TOKEN)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory has ended, on whatever device."""
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate" in str(error)


def _free() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
