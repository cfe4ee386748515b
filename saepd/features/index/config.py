"""How texts are read into an index."""

from __future__ import annotations

from dataclasses import dataclass

from saepd.common.checks import check_number


@dataclass(frozen=True)
class IndexConfig:
    """How texts are read into an index.

    Attributes:
        context_size: The most tokens that a passage may have; longer ones are cut off.
        passage_characters: About how many characters of a text make one passage.
        max_tokens: Tokens after which no further passage is read; 0 reads all.
        seed: Seed of the order of the passages, and of the draws that labels are made from.

    Raises:
        InputError: a number is out of range.
    """

    context_size: int = 128
    passage_characters: int = 450
    max_tokens: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("context_size", self.context_size, at_least=2, whole=True)
        check_number("passage_characters", self.passage_characters, at_least=1, whole=True)
        check_number("max_tokens", self.max_tokens, at_least=0, whole=True)
        check_number("seed", self.seed, at_least=0, whole=True)
