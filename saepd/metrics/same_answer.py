"""Which answers in free text are the same answer, by the words that they share."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from saepd.common.errors import InputError

_ARTICLES = frozenset({"a", "an", "the"})
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cluster_by_f1(responses: Sequence[str], similarity: float = 0.25) -> list[int]:
    """For each response, the place of the first response it matches: its cluster's centre.

    Responses are taken in order. One whose token F1 to an earlier centre is at least the
    similarity joins it, the first such if there are several; any other becomes a centre. So no
    two centres match, as the paper's algorithm 3 (step 4) asks. F1 is not transitive, and the
    paper leaves open where a response between two centres goes: here it is counted once, and
    which cluster gets it depends on the order of sampling.

    Raises:
        InputError: an empty response, or a similarity outside (0, 1].
    """
    if not 0 < similarity <= 1:
        raise InputError(f"the similarity is {similarity}: it must be in (0, 1]")
    bags = []
    for i, response in enumerate(responses):
        if not response.strip():
            raise InputError(f"responses[{i}] is empty: an answer needs a word")
        bags.append(_tokens(response))
    centres: list[int] = []
    clusters = []
    for i, bag in enumerate(bags):
        centre = next((c for c in centres if _f1(bags[c], bag) >= similarity), i)
        if centre == i:
            centres.append(i)
        clusters.append(centre)
    return clusters


def token_f1(a: str, b: str) -> float:
    """Harmonic mean of the shares of each text's tokens that the other has too, 0 to 1.

    Repeated tokens count as often as both have them. Tokens are what the SQuAD evaluation script
    makes of a text (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, without ASCII
    punctuation and English articles, split at spaces. A text of which that leaves nothing, such as
    "The" or "?!", is split as it stands.

    Raises:
        InputError: an empty text.
    """
    for text in (a, b):
        if not text.strip():
            raise InputError("a text to compare is empty: an answer needs a word")
    return _f1(_tokens(a), _tokens(b))


def _tokens(text: str) -> Counter[str]:
    words = text.lower().translate(_WITHOUT_PUNCTUATION).split()
    return Counter([w for w in words if w not in _ARTICLES] or text.lower().split())


def _f1(a: Counter[str], b: Counter[str]) -> float:
    return 2 * (a & b).total() / (a.total() + b.total())
