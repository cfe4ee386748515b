"""How much a text repeats itself: what steering too strongly does to it first."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from saepd.common.checks import check_number


def repetition(text: str | Sequence[Hashable], n: int = 3) -> float:
    """Share of a text's n-grams that it has had before: 1 - distinct n-grams / n-grams.

    ``seq-rep-n`` of Welleck et al. (2020, arXiv 1908.04319), from 0, where no n-gram comes twice,
    to nearly 1, where one comes for ever.

    Args:
        text: Tokens in their order, or a text, whose words are taken.
        n: Length of the n-grams.

    Returns:
        The share; 0 for a text that is too short to repeat anything.

    Raises:
        InputError: n is no whole number of at least 1.
    """
    check_number("n, the length of the n-grams,", n, at_least=1, whole=True)
    tokens = text.split() if isinstance(text, str) else text
    n_grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(n_grams)) / len(n_grams) if n_grams else 0.0
