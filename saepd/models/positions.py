"""Which token positions a direction edits: one meaning, cached or not, batched or alone.

======================  ==========================================================================
``all``                 every position but padding, special tokens and the first token
``prompt``              the same, within the prompt
``generated``           everything after the prompt: written options as well as sampled tokens
``answer``              the last prompt token and everything after it
``last(n)``             the last n prompt tokens
``after("marker")``     everything after the last occurrence of the marker in the prompt
======================  ==========================================================================

The first token is left out of ``all`` because it is an attention sink: its norm is some hundred
times the others', and no dictionary is trained on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Int

from saepd.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NAMES = ("all", "prompt", "generated", "answer")
_LAST = re.compile(r"last\((\d+)\)")
_AFTER = re.compile(r"""after\((["'])(.+)\1\)""", re.DOTALL)


@dataclass(frozen=True)
class Positions:
    """A parsed position spec; ``count`` belongs to ``last``, ``marker`` to ``after``."""

    kind: str
    count: int = 0
    marker: str = ""


def parse_positions(spec: str) -> Positions:
    """Parse ``all``, ``prompt``, ``generated``, ``answer``, ``last(3)`` or ``after("text")``.

    Raises:
        InputError: the spec is none of these.
    """
    if spec in _NAMES:
        return Positions(spec)
    if (match := _LAST.fullmatch(spec)) and int(match[1]) > 0:
        return Positions("last", count=int(match[1]))
    if match := _AFTER.fullmatch(spec):
        return Positions("after", marker=match[2])
    raise InputError(
        f"unknown positions {spec!r}: use {', '.join(_NAMES)}, last(n) with n > 0, "
        'or after("marker")'
    )


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
    import torch

    positions = parse_positions(spec)
    real = attention.bool()
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
    import torch

    kind = parse_positions(spec).kind
    if kind == "all":
        return ~_is_special(tokens, tokenizer)
    return torch.full_like(tokens, kind in ("generated", "answer", "after"), dtype=torch.bool)


def _is_special(tokens: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    import torch

    return torch.isin(tokens, _on_device(tuple(tokenizer.all_special_ids), tokens.device))


@lru_cache(maxsize=64)
def _on_device(ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Ids as a tensor, made once: in a token loop each copy to a device would wait for it."""
    import torch

    # Made outside of inference mode, so that gradients may flow past it as well.
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


def _first_token_after(ids: list[int], marker: str, tokenizer: Any) -> int:
    """Index of the first token whose text starts at or after the marker's last end."""
    text = tokenizer.decode(ids)
    found = text.rfind(marker)
    if found < 0:
        raise InputError(f"the marker {marker!r} does not occur in the prompt {text[-80:]!r}")
    end = found + len(marker)
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
