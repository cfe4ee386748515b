"""How the next token is drawn from a distribution."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int

from saepd.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Below this, dividing by the temperature leaves the range of float32.
MIN_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is drawn, and where a text ends besides the model's own end of text.

    The filters are Hugging Face's and act in its order: temperature, top_k, top_p, min_p.

    Attributes:
        max_new_tokens: Most tokens to write.
        temperature: 0 takes the most probable token, and then no filter may be set.
        top_k: Draw among this many most probable tokens; 0 is off.
        top_p: Draw among the fewest tokens that hold this much probability; 1 is off.
        min_p: Draw among tokens at least this much as probable as the best one; 0 is off.
        stop: Texts that end the writing; the first to appear is cut off, with all behind it.
        seed: Of the draws; together with the prompt it settles them, whatever else runs.

    Raises:
        InputError: a number is out of range, a stop text is empty, or an option would do nothing.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}: write at least one")
        if self.temperature != 0 and not MIN_TEMPERATURE <= self.temperature < math.inf:
            raise InputError(
                f"the temperature is {self.temperature}: give 0, or {MIN_TEMPERATURE:g} and more"
            )
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}: give a number of tokens, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it must be in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}: it must be in [0, 1]")
        filters = {"top_k": self.top_k > 0, "top_p": self.top_p < 1, "min_p": self.min_p > 0}
        if self.temperature == 0 and any(filters.values()):
            named = " and ".join(name for name, is_set in filters.items() if is_set)
            raise InputError(
                f"{named} would do nothing at temperature 0, where the most probable token is "
                "taken: set a temperature too"
            )
        if isinstance(self.stop, str) or not all(self.stop):
            raise InputError(
                f"stop is {self.stop!r}: give a list of texts, each of at least one character"
            )


class Sampler:
    """Draws tokens for several texts at once, each with luck of its own.

    A text's luck comes from the seed and its prompt alone, so it is drawn the same in a batch.
    """

    def __init__(
        self, config: SamplingConfig, prompts: Sequence[list[int]], device: torch.device
    ) -> None:
        """Prepare for texts behind some prompts, given as token ids."""
        import torch

        self._warpers = _warpers(config)
        self._generators: list[torch.Generator] | None = None
        if config.temperature > 0:
            self._generators = [
                torch.Generator(device=device).manual_seed(_seed(config.seed, prompt))
                for prompt in prompts
            ]

    def luck(
        self, scores: Float[Tensor, "rows vocab"], texts: Sequence[int]
    ) -> Float[Tensor, "rows vocab"] | None:
        """The next random numbers of each row's text, one for each token; None if none is drawn."""
        import torch

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
