"""Which token positions a direction edits: one meaning, cached or not, batched or alone.

======================  ==========================================================================
``every``               every position but padding: special tokens and the first one as well
``all``                 every position but padding, special tokens and the first token
``prompt``              the same, within the prompt
``generated``           everything after the prompt: written options as well as sampled tokens
``answer``              the last prompt token and everything after it
``last(n)``             the last n prompt tokens
``after("marker")``     everything after the last occurrence of the marker in the prompt
======================  ==========================================================================

The first token is left out of ``all`` because it is an attention sink: its norm is some hundred
times the others', and no dictionary is trained on it. ``every`` is there for what other tools do,
which mostly know no other positions (`saepd.export_directions`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.models.position_specs import parse_positions


def prompt_mask(
    spec: str,
    tokens: Int[Tensor, "batch seq"],
    attention: Int[Tensor, "batch seq"],
    tokenizer: Any,
) -> Bool[Tensor, "batch seq"]:
    """Positions of a prompt that a spec selects.

    Args:
        spec: See the module's table.
        tokens: Prompt token ids, padded on either side.
        attention: 1 where a token is real, 0 where it is padding.
        tokenizer: For special ids, and for the text in which a marker is looked up.

    Raises:
        InputError: an unknown spec, or a marker that a prompt does not contain.
    """
    positions = parse_positions(spec)
    real = attention.bool()
    if positions.kind == "every":
        return real
    if positions.kind == "generated":
        return torch.zeros_like(real)
    if positions.kind in ("all", "prompt"):
        first = real & (real.cumsum(-1) == 1)
        return real & ~first & ~_is_special(tokens, tokenizer)
    if positions.kind in ("answer", "last"):
        from_the_end = real.flip(-1).cumsum(-1).flip(-1)
        return real & (from_the_end <= max(1, positions.count))
    mask = torch.zeros_like(real)
    for row in range(tokens.shape[0]):
        columns = real[row].nonzero().squeeze(-1)
        start = _first_token_after(tokens[row, columns].tolist(), positions.marker, tokenizer)
        mask[row, columns[start:]] = True
    return mask


def generated_mask(
    spec: str, tokens: Int[Tensor, "batch seq"], tokenizer: Any
) -> Bool[Tensor, "batch seq"]:
    """Positions after the prompt that a spec selects: the same rule for every such token.

    Raises:
        InputError: an unknown spec.
    """
    kind = parse_positions(spec).kind
    if kind == "all":
        return ~_is_special(tokens, tokenizer)
    return torch.full_like(
        tokens, kind in ("every", "generated", "answer", "after"), dtype=torch.bool
    )


def _is_special(tokens: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    return torch.isin(tokens, _on_device(tuple(tokenizer.all_special_ids), tokens.device))


@lru_cache(maxsize=64)
def _on_device(ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Ids as a tensor, made once: in a token loop each copy to a device would wait for it."""
    # Made outside of inference mode, so that gradients may flow past it as well.
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


def _first_token_after(ids: list[int], marker: str, tokenizer: Any) -> int:
    """Index of the first token whose text starts at or after the marker's last end."""
    text = tokenizer.decode(ids)
    start = text.rfind(marker)
    if start < 0:
        raise InputError(f"the marker {marker!r} does not occur in the prompt {text[-80:]!r}")
    end = start + len(marker)
    low, high = 0, len(ids)
    # More tokens decode to more text, so the boundary is found by bisection. Text is compared and
    # not its length, since a character that is cut off decodes to a replacement character.
    while low < high:
        middle = (low + high) // 2
        if tokenizer.decode(ids[:middle])[:end] == text[:end]:
            high = middle
        else:
            low = middle + 1
    return low
