"""Write text from the merged branches, token by token, with one key-value cache for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saepd.branches import Branch, check_prompts, extend, make_plan, start
from saepd.errors import InputError
from saepd.merge import MergeConfig, merge_branches
from saepd.prompts import check_lengths, pad_left

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is drawn from the merged distribution.

    Attributes:
        max_new_tokens: Most tokens to write.
        temperature: 0 takes the most probable token.
        top_p: Smallest set of tokens that holds this much probability; 1 keeps all.
        seed: Of the draws.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}: write at least one")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"the temperature is {self.temperature}: give 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it must be in (0, 1]")


def generate(
    model: TransformerBridge,
    prompt: str,
    directions: Sequence[Branch],
    merge_config: MergeConfig | None = None,
    sampling: SamplingConfig | None = None,
) -> Iterator[str]:
    """Stream the text that the merged branches write after a prompt.

    Every branch reads the same text; the merge of their next-token distributions writes it. The
    text ends at the model's end-of-text token or after ``max_new_tokens``.

    Raises:
        InputError: an empty or too long prompt, no directions, or one that does not fit.
    """
    import torch
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    merge_config, sampling = merge_config or MergeConfig(), sampling or SamplingConfig()
    if not directions:
        raise InputError("no directions: give at least one to merge with the base")
    [row] = check_prompts(model, [prompt])
    check_lengths(model, [row], room=sampling.max_new_tokens)
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    stops = _stop_ids(model)
    state = start(make_plan(model, directions), pad_left(model, [row]), keep_cache=True)
    log_probs = state.log_probs
    generator = torch.Generator(device=log_probs.device).manual_seed(sampling.seed)
    written: list[int] = []
    shown = ""
    for _ in range(sampling.max_new_tokens):
        merged = merge_branches(log_probs, merge_config)
        if sampling.temperature == 0:
            token = merged.argmax(-1, keepdim=True)
        else:
            seen = torch.tensor([row + written], device=merged.device)
            scores: Any = warpers(seen, merged)
            token = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        if int(token) in stops:
            break
        written.append(int(token))
        text = model.tokenizer.decode(written, skip_special_tokens=True)
        # Half a character decodes to the replacement sign; it is shown once it is whole.
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
        log_probs = extend(state, token, torch.ones_like(token))[:, :, -1]


def _stop_ids(model: TransformerBridge) -> set[int]:
    configured = getattr(model.original_model, "generation_config", None)
    found = getattr(configured, "eos_token_id", None)
    ids = found if isinstance(found, list) else [found]
    return {i for i in [*ids, model.tokenizer.eos_token_id] if i is not None}
