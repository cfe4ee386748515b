"""Text in, tokens out: exactly those that the model's own tokenizer makes, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.models.chat import chat_opening

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Any word will do: it shows which blanks a tokenizer makes part of the word that follows them.
_WORD = "A"


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts."""

    tokens: Int[Tensor, "batch seq"]
    attention: Int[Tensor, "batch seq"]

    @property
    def position_ids(self) -> Int[Tensor, "batch seq"]:
        """Rotary or absolute position of each token, counted from its row's first real one."""
        return (self.attention.cumsum(-1) - 1).clamp(min=0)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one prompt, with the tokenizer's own opening unless the text brings one.

    Blanks at the end that the tokenizer would make part of a word behind them are left to what
    follows: see `continuation_ids`.

    Raises:
        InputError: an empty prompt.
    """
    if not prompt.strip():
        raise InputError("a prompt is empty: give it some text")
    return _opened_ids(tokenizer, prompt[: _seam(tokenizer, prompt)])


def left_blanks(tokenizer: Any, prompt: str) -> str:
    """The blanks at the end of a prompt that `prompt_ids` leaves to what follows."""
    return prompt[_seam(tokenizer, prompt) :]


def continuation_ids(tokenizer: Any, prompt: str, continuation: str) -> list[int]:
    """Token ids that a continuation adds to a prompt.

    A space joins them unless one of them has white space there, or the prompt ends in a special
    token. The two are tokenised together, as the model would have seen them; where that changes
    the prompt's own tokens, the continuation is tokenised alone.

    Raises:
        InputError: the continuation adds no token.
    """
    before = prompt_ids(tokenizer, prompt)
    seam = _seam(tokenizer, prompt)
    joined = prompt[-1:].isspace() or continuation[:1].isspace()
    space = "" if joined or _is_special(tokenizer, before[-1]) else " "
    both = _opened_ids(tokenizer, prompt + space + continuation)
    if both[: len(before)] == before:
        added = both[len(before) :]
    else:
        text = prompt[seam:] + space + continuation
        added = tokenizer(text, add_special_tokens=False).input_ids
    if not continuation or not added:
        raise InputError(
            f"the option {continuation!r} adds no token to the prompt: give it some text"
        )
    return added


def pad_left(model: TransformerBridge, rows: Sequence[list[int]]) -> PromptBatch:
    """Token rows as one left-padded batch on the model's device."""
    length = max(len(row) for row in rows)
    pad = padding_id(model)
    tokens = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    attention = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    device = next(model.original_model.parameters()).device
    return PromptBatch(tokens.to(device), attention.to(device))


def padding_id(model: TransformerBridge) -> int:
    """A token id to fill rows up with: it is masked, but it must have a row in the embedding."""
    pad = model.tokenizer.pad_token_id
    return int(pad) if pad is not None and pad < int(model.cfg.d_vocab) else 0


def check_lengths(
    model: TransformerBridge, rows: Sequence[list[int]], room: int | Sequence[int] = 0
) -> None:
    """Refuse prompts that leave no room for further tokens in the model's context.

    Args:
        model: The language model.
        rows: Token ids of each prompt.
        room: How many further tokens: for all prompts, or for each of them.

    Raises:
        InputError: a prompt is too long.
    """
    limit = int(model.cfg.n_ctx)
    rooms = [room] * len(rows) if isinstance(room, int) else room
    for index, (row, more) in enumerate(zip(rows, rooms, strict=True)):
        if len(row) + more > limit:
            wanted = f" and needs {more} more" if more else ""
            raise InputError(
                f"prompt {index} has {len(row)} tokens{wanted}, but the model's context holds "
                f"{limit}: shorten it"
            )


def check_embedded(model: TransformerBridge, rows: Iterable[list[int]]) -> None:
    """Refuse tokens that the tokenizer makes and the model has no embedding of.

    Raises:
        InputError: naming such a token, and how many the model has.
    """
    n_rows = int(model.cfg.d_vocab)
    for row in rows:
        if (token := max(row, default=0)) >= n_rows:
            raise InputError(
                f"the tokenizer makes the token {model.tokenizer.decode([token])!r} ({token}), but "
                f"the model's embedding has {n_rows} rows: tokenizer and model do not belong "
                "together"
            )


def _seam(tokenizer: Any, prompt: str) -> int:
    """How much of a prompt keeps its tokens whatever word follows: all but some blanks.

    ``"Answer: "`` ends in a token of its own for the blank, which no text has in the middle: there
    the blank belongs to the next word.
    """
    end = len(prompt)
    if prompt[-1:].isspace():
        both = _opened_ids(tokenizer, prompt + _WORD)
        while prompt[end - 1 : end].isspace():
            before = _opened_ids(tokenizer, prompt[:end])
            if both[: len(before)] == before:
                break
            end -= 1
    return end


def _opened_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids with what the tokenizer puts in front of a text, and nothing put behind it."""
    plain = tokenizer(text, add_special_tokens=False).input_ids
    whole = tokenizer(text).input_ids
    if whole == plain or _is_opened(tokenizer, text, plain):
        return plain
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[: start + len(plain)]
    return whole


def _is_opened(tokenizer: Any, text: str, ids: list[int]) -> bool:
    """Whether a text begins with a special token, or as the tokenizer's chat template does.

    No tokenizer puts anything in front of its own template.
    """
    if ids and _is_special(tokenizer, ids[0]):
        return True
    opening = chat_opening(tokenizer)
    return bool(opening.strip()) and text.startswith(opening)


def _is_special(tokenizer: Any, token: int) -> bool:
    shown, hidden = (tokenizer.decode([token], skip_special_tokens=s) for s in (False, True))
    return bool(shown) and not hidden
