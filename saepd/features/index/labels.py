"""A label for a latent, computed: words that its contexts share against the rest of the texts.

A word can tell a context in three ways: the latent fires ``at`` it, or ``after`` it, or ``near``
it. How much more often than in all texts each word is there is the log-odds with a prior in
proportion to the texts' own words, in units of its standard error (Monroe, Colaresi and Quinn 2008,
"Fightin' Words", eq. 16 to 22). The words with the largest are the label. Labels are made of one
half of the passages; on the other half it is measured how well they tell where the latent fires.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from saepd.features.index.passages import NO_WORD, Passages
from saepd.metrics.weighted import auroc

Where = Literal["at", "after", "near"]
WHERE: tuple[Where, ...] = get_args(Where)
N_TERMS = 8
# A word counts as near if it ends at most so many tokens before: what follows is not read yet.
NEAR = 12
# Words that the prior is worth: what is seen less often than that says little.
_PRIOR = 100.0
_LEAST_COUNT = 3
_LEAST_Z = 3.0
# Firings that a label is made of, and that it is scored on, at most.
_N_LEARNT, _N_SCORED = 512, 200
LEAST_SCORED = 5


class Term(NamedTuple):
    """A word of a label.

    Attributes:
        word: The word or sign, in lower case.
        where: Whether the latent fires at it, after it or near it.
        weight: Log-odds of it there against all texts, in nats.
    """

    word: str
    where: Where
    weight: float


class Label(NamedTuple):
    """The label of a latent, with words as numbers.

    Attributes:
        words: Index of each term in the vocabulary; -1 where there are fewer terms.
        where: Index of each term in `WHERE`.
        weights: Log-odds of each term, in nats.
        score: AUROC of telling passages held out where the latent fires at its median strength or
            more from places where it is silent; NaN where there are too few.
    """

    words: Int[np.ndarray, " terms"]
    where: Int[np.ndarray, " terms"]
    weights: Float[np.ndarray, " terms"]
    score: float


def is_held_out(passages: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether labels are scored on each passage of a collection, rather than made of it."""
    return passages % 2 == 1


class Labeller:
    """Labels the latents of one collection: what all of them are compared with is counted once."""

    def __init__(self, passages: Passages, counted: Bool[np.ndarray, " tokens"], seed: int) -> None:
        self._passages, self._seed = passages, seed
        n_tokens = np.diff(passages.starts)
        self._held_out = np.repeat(is_held_out(np.arange(len(passages.rows))), n_tokens)
        self._others = np.flatnonzero(counted & self._held_out)
        learnt = np.flatnonzero(counted & ~self._held_out)
        ended = learnt[passages.closes[learnt]]
        columns = (passages.words[learnt], passages.before[learnt], passages.words[ended])
        self._everywhere = [self._count(column) for column in columns]

    def label(
        self,
        latent: int,
        positions: Int[np.ndarray, " firings"],
        values: Float[np.ndarray, " firings"],
    ) -> Label:
        """The label of one latent.

        Args:
            latent: Id of the latent, which seeds the draws of its firings.
            positions: Where it fires, in order.
            values: Its activations there.
        """
        rng = np.random.default_rng([self._seed, latent])
        held_out = self._held_out[positions]
        # The stronger, the more a firing says of what the latent is about.
        learnt = _draw(rng, positions[~held_out], _N_LEARNT, values[~held_out])
        terms = self._terms(learnt)
        strong = values >= np.median(values) if len(values) else held_out
        scored = _draw(rng, positions[held_out & strong], _N_SCORED)
        silent = _draw(rng, self._others, 2 * _N_SCORED)
        silent = silent[~np.isin(silent, positions)]
        if len(scored) < LEAST_SCORED or len(silent) < LEAST_SCORED:
            return Label(*terms, float("nan"))
        both = np.concatenate([scored, silent])
        fires = np.arange(len(both)) < len(scored)
        once = np.ones((1, len(both)))
        return Label(*terms, float(auroc(self._scores(both, *terms), fires, once)[0]))

    def _terms(
        self, positions: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"], Float[np.ndarray, " t"]]:
        p = self._passages
        words = np.full(N_TERMS, NO_WORD, dtype=np.int32)
        where, weights = np.zeros(N_TERMS, dtype=np.uint8), np.zeros(N_TERMS, dtype=np.float32)
        columns = (p.words[positions], p.before[positions], self._near(positions).ravel())
        terms: dict[int, tuple[float, int, float]] = {}
        for kind, column in enumerate(columns):
            here = self._count(column)
            often = np.flatnonzero(here >= _LEAST_COUNT)
            odds, error = log_odds(
                here[often], self._everywhere[kind][often], here.sum(), self._everywhere[kind].sum()
            )
            for word, one, z in zip(often.tolist(), odds, odds / error, strict=True):
                if z >= _LEAST_Z and z > terms.get(word, (0.0,))[0]:
                    terms[word] = (float(z), kind, float(one))
        best = sorted(terms.items(), key=lambda entry: -entry[1][0])[:N_TERMS]
        for i, (word, (_, kind, weight)) in enumerate(best):
            words[i], where[i], weights[i] = word, kind, weight
        return words, where, weights

    def _scores(
        self,
        positions: Int[np.ndarray, " n"],
        words: Int[np.ndarray, " t"],
        where: Int[np.ndarray, " t"],
        weights: Float[np.ndarray, " t"],
    ) -> Float[np.ndarray, " n"]:
        """Sum of the weights of the terms that are there."""
        p = self._passages
        columns = (p.words[positions][:, None], p.before[positions][:, None], self._near(positions))
        total = np.zeros(len(positions))
        for word, kind, weight in zip(words, where, weights, strict=True):
            if word != NO_WORD:
                total += weight * (columns[kind] == word).any(1)
        return total

    def _near(self, positions: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n window"]:
        """Words that end shortly before each position in its passage; -1 for none."""
        p = self._passages
        window = positions[:, None] + np.arange(-NEAR, 0)
        passage = np.searchsorted(p.starts, positions, side="right") - 1
        inside = window >= p.starts[passage][:, None]
        window = np.where(inside, window, 0)
        return np.where(inside & p.closes[window], p.words[window], NO_WORD)

    def _count(self, words: Int[np.ndarray, " n"]) -> Float[np.ndarray, " words"]:
        n_words = len(self._passages.vocabulary)
        return np.bincount(words[words != NO_WORD], minlength=n_words).astype(float)


def log_odds(
    here: Float[np.ndarray, " words"],
    everywhere: Float[np.ndarray, " words"],
    n_here: float,
    n_everywhere: float,
) -> tuple[Float[np.ndarray, " words"], Float[np.ndarray, " words"]]:
    """Log-odds of words in one place against all texts, in nats, and their standard errors.

    The prior of each word is `_PRIOR` words in proportion to the texts (Monroe et al. 2008, eq. 16
    and 20).

    Args:
        here: How often each word is in the place.
        everywhere: How often it is in all texts.
        n_here: Words in the place.
        n_everywhere: Words in all texts.
    """
    # A word near many firings may be counted oftener than it is there.
    prior = _PRIOR * np.maximum(everywhere, 1) / max(1.0, n_everywhere)
    rest, n_rest = everywhere + prior, n_everywhere + _PRIOR
    inside, n_inside = here + prior, n_here + _PRIOR
    odds = np.log(inside / np.maximum(n_inside - inside, 1e-9)) - np.log(rest / (n_rest - rest))
    return odds, np.sqrt(1 / inside + 1 / rest)


def _draw(
    rng: np.random.Generator,
    positions: Int[np.ndarray, " n"],
    n: int,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, " m"]:
    """At most n of the positions, each once; the heavier, the likelier."""
    if len(positions) <= n:
        return positions
    shares = None if weights is None else weights.astype(float) / weights.astype(float).sum()
    return np.sort(rng.choice(positions, n, replace=False, p=shares))
