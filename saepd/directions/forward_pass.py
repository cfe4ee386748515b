"""What one forward pass was given: which of its tokens are real, and which are the prompt's.

While text is generated its prompt is known. In forward passes of one's own the prompt is what is
given at once, and what follows it in a cache, one token at a time, is generated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.gate import Amounts
from saepd.models.position_specs import parse_positions
from saepd.models.positions import generated_mask, prompt_mask


@dataclass
class Generation:
    """A call of ``generate`` that is running.

    Attributes:
        prompt: Token ids of the prompts, as soon as they are known.
        attention: 1 where a column of the prompt holds a token.
        end: Columns that the passes so far have read.
        amounts: What each gate says of each prompt, as soon as they are known.
    """

    prompt: Int[Tensor, "batch prompt"] | None = None
    attention: Int[Tensor, "batch prompt"] | None = None
    end: int = 0
    amounts: Amounts | None = None


@dataclass
class ForwardPass:
    """What one forward pass was given.

    Attributes:
        tokens: Token ids that it was given.
        real: Whether each column holds a token, from the text's start on.
        past: Columns before these.
        prompt: Token ids of each row's prompt, from the text's start; None where it has run and is
            not known.
        prompt_attention: 1 where a column of the prompt holds a token.
        boundary: How many of the input's columns belong to the prompt.
        is_chunk: Whether what is fed behind a cache might be prompt or not.
        masks: Positions of the input that each spec asked for so far selects.
        amounts: What each gate says of each row.
    """

    tokens: Int[Tensor, "batch seq"]
    real: Bool[Tensor, "batch past_and_seq"]
    past: int
    prompt: Int[Tensor, "batch prompt"] | None
    prompt_attention: Int[Tensor, "batch prompt"] | None
    boundary: int
    is_chunk: bool
    masks: dict[str, Bool[Tensor, "batch seq"]] = field(default_factory=dict)
    amounts: Amounts = field(default_factory=dict)

    def mask(self, spec: str, tokenizer: Any) -> Bool[Tensor, "batch seq"]:
        """Positions of the input that a spec selects.

        Raises:
            InputError: positions that need to know where the prompt ends, and it cannot be known.
        """
        if spec not in self.masks:
            self.masks[spec] = self._selected(spec, tokenizer)
        return self.masks[spec]

    def _selected(self, spec: str, tokenizer: Any) -> Bool[Tensor, "batch seq"]:
        n, kind = self.tokens.shape[1], parse_positions(spec).kind
        if self.is_chunk and kind not in ("every", "all"):
            raise InputError(
                f"{n} tokens behind a cache may be prompt or answer, which positions {spec!r} "
                "must know: feed the prompt at once and the rest one by one, or use generate"
            )
        parts = []
        if self.boundary:
            assert self.prompt is not None and self.prompt_attention is not None
            whole = prompt_mask(spec, self.prompt, self.prompt_attention, tokenizer)
            parts.append(whole[:, self.past : self.past + self.boundary])
        if self.boundary < n:
            behind = generated_mask(spec, self.tokens[:, self.boundary :], tokenizer)
            if kind in ("every", "all"):
                # A row whose padding reaches this far starts here.
                later = self.real & (self.real.cumsum(-1) > (kind == "all"))
                behind = behind & later[:, self.past + self.boundary :]
            parts.append(behind)
        return torch.cat(parts, dim=1)


def read_pass(kwargs: dict[str, Any], running: Generation | None, tokenizer: Any) -> ForwardPass:
    """What a forward pass was given, from the arguments of the model's call.

    Args:
        kwargs: Arguments of the call, by name.
        running: The generation that it is a step of, which learns from it; None if of none.
        tokenizer: The model's.

    Raises:
        InputError: no token ids, a mask of another kind, or texts whose prompt cannot be told.
    """
    tokens = kwargs.get("input_ids")
    if not isinstance(tokens, Tensor):
        raise InputError("steering needs token ids: the model was called with embeddings")
    past = _columns_before(kwargs, tokens.shape[1], running)
    given = kwargs.get("attention_mask")
    mask = given if isinstance(given, Tensor) and given.ndim == 2 else None
    if given is not None and mask is None and running is None:
        raise InputError(
            "steering needs an attention mask of 0 and 1, [batch, tokens]: leave out the mask "
            "of attention scores, or give it as the model's padding"
        )
    if running is None:
        return _own_pass(tokens, mask, past, tokenizer)
    return _step_of(running, tokens, mask, past, tokenizer)


def _own_pass(tokens: Tensor, mask: Tensor | None, past: int, tokenizer: Any) -> ForwardPass:
    """A forward pass of one's own: what is given at once is the prompt."""
    n = tokens.shape[1]
    attention = _guess_attention(tokens, tokenizer) if mask is None else mask
    token_attention = attention[:, -n:].long()
    real = torch.cat([attention.new_ones(len(tokens), past), token_attention], 1)
    if attention.shape[1] == past + n:
        real = attention
    return ForwardPass(
        tokens,
        real.bool(),
        past,
        prompt=None if past else tokens,
        prompt_attention=token_attention,
        boundary=0 if past else n,
        is_chunk=bool(past) and n > 1,
    )


def _step_of(
    running: Generation, tokens: Tensor, mask: Tensor | None, past: int, tokenizer: Any
) -> ForwardPass:
    """A step of a generation, which is told the prompt and how far it has come."""
    n = tokens.shape[1]
    if running.prompt is None:
        if past:
            raise InputError(
                "steering needs the whole prompt: generate was given a cache and only the rest"
            )
        running.prompt, running.attention = tokens, mask
    running.end = past + n
    prompt = running.prompt
    copies, rest = divmod(len(tokens), len(prompt))
    if rest:
        raise InputError(
            f"steering cannot tell the {len(tokens)} texts of this step from its "
            f"{len(prompt)} prompts: generate in another way"
        )
    if running.attention is None and mask is not None and mask.shape[1] >= prompt.shape[1]:
        running.attention = mask[::copies, : prompt.shape[1]]
    attention = running.attention
    if attention is None:
        guess = _guess_attention if mask is None else _inferred_attention
        attention = guess(prompt, tokenizer)
    prompt = prompt.to(tokens.device).repeat_interleave(copies, 0)
    attention = attention.to(tokens.device).long().repeat_interleave(copies, 0)
    n_prompt = prompt.shape[1]
    behind = attention.new_ones(len(tokens), max(0, past + n - n_prompt))
    real = torch.cat([attention, behind], 1)[:, : past + n].bool()
    boundary = min(n, max(0, n_prompt - past))
    return ForwardPass(tokens, real, past, prompt, attention, boundary, is_chunk=False)


def _columns_before(kwargs: dict[str, Any], n: int, running: Generation | None) -> int:
    """Columns that the model has read before these."""
    cache = kwargs.get("past_key_values")
    if getattr(cache, "is_compileable", False):
        raise InputError(
            "the bridge reads the empty places of a static cache as text, steered or not: use "
            "the default cache"
        )
    if cache is not None and hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    if running is not None:
        # A model that keeps a state says nothing of its length. Without one, inputs grow.
        return running.end if 0 < n <= running.end else 0
    state = kwargs.get("cache_params", cache)
    return 0 if state is None else 1


def _inferred_attention(tokens: Tensor, tokenizer: Any) -> Int[Tensor, "batch seq"]:
    """The mask that transformers' generate makes where none was given."""
    if tokenizer is None or tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        return torch.ones_like(tokens)
    return (tokens != tokenizer.pad_token_id).long()


def _guess_attention(tokens: Tensor, tokenizer: Any) -> Int[Tensor, "batch seq"]:
    """Mask for a batch that came without one: trailing runs of the padding token are padding.

    A single row is never padded. (The bridge pads lists of strings on the right and passes no
    mask, because a causal model's earlier positions cannot see the padding.)
    """
    if tokens.shape[0] == 1 or tokenizer is None or tokenizer.pad_token_id is None:
        return torch.ones_like(tokens)
    is_text = (tokens != tokenizer.pad_token_id).long()
    return (is_text.flip(-1).cumsum(-1).flip(-1) > 0).long()
