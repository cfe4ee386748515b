"""How the next token is drawn from a distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.writing.config import SamplingConfig


class Sampler:
    """Draws tokens for several texts at once, each with luck of its own.

    A text's luck comes from the seed and its prompt alone, so it is drawn the same in a batch.
    """

    def __init__(
        self,
        config: SamplingConfig,
        prompts: Sequence[list[int]],
        device: torch.device,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Prepare for texts behind some prompts, given as token ids.

        Args:
            config: How tokens are drawn.
            prompts: Token ids of each text's prompt.
            device: Where log-probs are.
            seeds: Seed of each text's draws; the config's for all if None.
        """
        seeds = [config.seed] * len(prompts) if seeds is None else seeds
        self._warpers = _warpers(config)
        self._generators: list[torch.Generator] | None = None
        if config.temperature > 0:
            self._generators = [
                torch.Generator(device=device).manual_seed(_seed(seed, prompt))
                for seed, prompt in zip(seeds, prompts, strict=True)
            ]

    def luck(
        self, scores: Float[Tensor, "rows vocab"], texts: Sequence[int]
    ) -> Float[Tensor, "rows vocab"] | None:
        """The next random numbers of each row's text, one for each token; None if none is drawn."""
        if self._generators is None:
            return None
        rows = [
            torch.empty_like(row).exponential_(generator=self._generators[text])
            for row, text in zip(scores, texts, strict=True)
        ]
        return torch.stack(rows)

    def choose(
        self,
        scores: Float[Tensor, "rows vocab"],
        luck: Float[Tensor, "rows vocab"] | None,
    ) -> Int[Tensor, " rows"]:
        """A token for each row.

        The tokens race: each arrives after a time drawn from the exponential distribution, divided
        by its probability, and the first one is taken. This is what ``torch.multinomial`` computes,
        without its checks, for which the host would wait.

        Args:
            scores: Log-probs in nats.
            luck: From `luck`; the same luck shows what another distribution would have drawn.
        """
        if luck is None:
            return scores.argmax(-1)
        # The best one is 0 then, and stays finite at any temperature.
        shifted = scores - scores.amax(-1, keepdim=True)
        # No filter in use looks at the tokens before.
        warped: Any = self._warpers(None, shifted)
        return (warped.softmax(-1) / luck).argmax(-1)


def _seed(seed: int, prompt: Sequence[int]) -> int:
    digest = hashlib.blake2b(f"{seed}:{list(prompt)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _warpers(config: SamplingConfig) -> Any:
    """Hugging Face's filters, in the order in which its ``generate`` applies them."""
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warpers = LogitsProcessorList()
    if config.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(float(config.temperature)))
    if config.top_k > 0:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    if config.min_p > 0:
        warpers.append(MinPLogitsWarper(config.min_p))
    return warpers
