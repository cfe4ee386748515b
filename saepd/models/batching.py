"""How many prompts run together: sorted by length, packed to a budget, halved when memory ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from saepd.common.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# On a processor, more tokens at once than this are no faster each.
_ENOUGH_ON_CPU = 4096
_ENOUGH = 65536
_SHARE_OF_MEMORY = 0.5

_Result = TypeVar("_Result")


def in_packs(
    model: TransformerBridge,
    costs: Sequence[int],
    run: Callable[[list[int]], Sequence[_Result]],
) -> list[_Result]:
    """Run work in packs of like size, within what memory holds.

    Args:
        model: The language model; its size and device say what a token costs.
        costs: Of each piece of work, in tokens; a pack costs its dearest times its number.
        run: Takes the indices of a pack, returns one result for each.

    Returns:
        The results in the order of ``costs``.

    Raises:
        InputError: memory does not even hold the one piece it ended with.
    """
    budget = token_budget(model)
    results: dict[int, _Result] = {}
    waiting = sorted(range(len(costs)), key=lambda i: -costs[i])
    while waiting:
        pack = next(packs([costs[i] for i in waiting], budget))
        indices = [waiting[i] for i in pack]
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
        del waiting[: len(indices)]
    return [results[i] for i in range(len(costs))]


def packs(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of like cost, dearest first, each group within the budget."""
    group: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        if group and (len(group) + 1) * costs[group[0]] > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


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
