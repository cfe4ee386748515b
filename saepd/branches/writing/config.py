"""How the next token is drawn, and where a text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saepd.common.checks import check_number, check_numbers
from saepd.common.errors import InputError
from saepd.merge.config import PROBABILITY_TOLERANCE

# Below this, dividing by the temperature leaves the range of float32.
MIN_TEMPERATURE = 1e-6
# Of several texts unless told otherwise, as Abbasi Yadkori et al. (2024) draw answers.
DRAWN_AT = 0.9


@dataclass(frozen=True)
class SamplingConfig:
    """How text is drawn, and where it ends besides the model's own end of text.

    The filters are Hugging Face's and act in its order: temperature, top_k, top_p, min_p.

    Attributes:
        max_new_tokens: The most tokens that are written.
        temperature: Temperature of the draws; 0 takes the most probable token, and then no filter
            may be set.
        top_k: Draw among this many most probable tokens; 0 is off.
        top_p: Draw among the fewest tokens that hold this much probability; 1 is off.
        min_p: Draw among tokens at least this much as probable as the best one; 0 is off.
        stop: Texts that end the writing; the first to appear is cut off, with all behind it.
        seed: Seed of the draws; together with the prompt it settles them, whatever else runs.

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
        check_number("max_new_tokens", self.max_new_tokens, at_least=1, whole=True)
        check_number("the temperature", self.temperature, at_least=0)
        if 0 < self.temperature < MIN_TEMPERATURE:
            raise InputError(
                f"the temperature is {self.temperature}: give 0, or {MIN_TEMPERATURE:g} and more"
            )
        check_number("top_k", self.top_k, at_least=0, whole=True)
        check_number("top_p", self.top_p, above=0, at_most=1)
        check_number("min_p", self.min_p, at_least=0, at_most=1)
        check_number("the seed", self.seed, whole=True)
        filters = {"top_k": self.top_k > 0, "top_p": self.top_p < 1, "min_p": self.min_p > 0}
        if self.temperature == 0 and any(filters.values()):
            named = " and ".join(name for name, is_set in filters.items() if is_set)
            raise InputError(
                f"{named} would do nothing at temperature 0, where the most probable token is "
                "taken: set a temperature too"
            )
        listed = isinstance(self.stop, Sequence) and not isinstance(self.stop, str)
        if not listed or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(
                f"stop is {self.stop!r}: give a list of texts, each of at least one character"
            )


@dataclass(frozen=True)
class OvertonConfig:
    """How the distinct answers of a population are found.

    Attributes:
        n_samples: Number of texts that the base and each perspective write.
        similarity: Token F1 from which two texts count as the same answer.
        shares: Share of each perspective in the population, in the order of the directions; 0 or
            more, summing to 1. All count alike if none are given.

    Raises:
        InputError: a number is out of range.
    """

    n_samples: int = 4
    similarity: float = 0.4
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_number("n_samples", self.n_samples, at_least=1, whole=True)
        check_number("the similarity", self.similarity, above=0, at_most=1)
        if self.shares:
            check_numbers("shares", self.shares, at_least=0)
            if abs(sum(self.shares) - 1) > PROBABILITY_TOLERANCE:
                raise InputError(f"shares are {self.shares}: their sum must be 1")
