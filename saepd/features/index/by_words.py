"""Latents by words: those of their labels, of their contexts, and the tokens they promote."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.features.index.contexts import BEFORE, BEHIND, NONE
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.passages import NO_WORD, WORD, Numbered

# What a hit in each field weighs: a label is made of all contexts, a decoder row's tokens mislead.
_FIELDS = {"label": 0.5, "contexts": 0.35, "tokens": 0.15}
# Where others gave labels, too, these share the weight of the computed ones.
_FIELDS_WITH_GIVEN = _FIELDS | {"label": 0.25, "given": 0.25}
# What a word in a context weighs at which the latent is silent.
_SILENT = 0.1
_LONGEST_QUERY = 1000
# Shorter pieces of words that a latent promotes are as good as noise.
_SHORTEST_TOKEN = 3


class _Fields(NamedTuple):
    """The words of every latent, TF-IDF weighted, each row of length one."""

    numbers: dict[str, int]
    idf: dict[str, Float[np.ndarray, " words"]]
    rows: dict[str, sparse.csr_matrix]


_made: weakref.WeakKeyDictionary[FeatureIndex, _Fields] = weakref.WeakKeyDictionary()


def field_weights(index: FeatureIndex) -> dict[str, float]:
    """What a hit in each field weighs; 1 in all."""
    return _FIELDS_WITH_GIVEN if index.has_given else _FIELDS


def by_words(index: FeatureIndex, query: str) -> dict[str, Float[np.ndarray, " d_sae"]]:
    """How near each latent is to a query: the cosine of TF-IDF vectors in each field.

    Plural endings do not matter (the S stemmer, Harman 1991), nor does the case.

    Raises:
        InputError: a query without words, one that is too long, or words that the index does not
            know.
    """
    if len(query) > _LONGEST_QUERY:
        raise InputError(
            f"the query is {len(query)} characters long: ask for a few words, or look up the text "
            "as a text (on the command line, --text)"
        )
    words = words_of(query)
    # "Money and taxes" is not about "and"; a query of nothing else is.
    words = [word for word in words if word not in ENGLISH_STOP_WORDS] or words
    if not words:
        raise InputError(f"the query {shortened(query)} holds no words: ask for some")
    fields = _made.get(index) or _made.setdefault(index, _fields_of(index))
    known = [fields.numbers[s] for s in map(stem, words) if s in fields.numbers]
    if not known:
        raise InputError(
            f"no label, context or token of this index has the words of {shortened(query)}: ask "
            "for others, or look up a text (on the command line, --text)"
        )
    cosines = {}
    for name, rows in fields.rows.items():
        asked = np.zeros(len(fields.numbers))
        asked[known] = fields.idf[name][known]
        length = np.linalg.norm(asked)
        cosines[name] = np.asarray(rows @ asked) / (length or 1.0)
    return cosines


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [match[0].lower() for match in WORD.finditer(text)]


def stem(word: str) -> str:
    """A word without the ending of its plural (the S stemmer; Harman 1991, table 1)."""
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


def _fields_of(index: FeatureIndex) -> _Fields:
    numbers = Numbered()
    # The word or words of each word of the index, without their endings.
    stems = np.array([numbers[stem(word.strip("…"))] for word in index.words], dtype=np.int64)
    counted = {
        "label": _label_words(index, stems),
        "contexts": _context_words(index, stems),
        "tokens": _token_words(index, numbers),
    }
    if index.has_given:
        counted["given"] = _given_words(index, numbers)
    shape = (index.d_sae, len(numbers.strings))
    rows, idf = {}, {}
    for name, (latents, words, weights) in counted.items():
        counts = sparse.csr_matrix((weights, (latents, words)), shape=shape)
        weighting = TfidfTransformer().fit(counts)
        rows[name], idf[name] = weighting.transform(counts), weighting.idf_
    return _Fields({word: i for i, word in enumerate(numbers.strings)}, idf, rows)


_Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def _label_words(index: FeatureIndex, stems: np.ndarray) -> _Entries:
    words = index.array("label_words")
    latents, places = np.nonzero(words != NO_WORD)
    weights = index.array("label_weights")[latents, places].astype(float)
    return latents, stems[words[latents, places]], weights


def _given_words(index: FeatureIndex, numbers: Numbered) -> _Entries:
    return _counted_once(
        (latent, numbers[stem(word)])
        for latent in range(index.d_sae)
        for label in index.given(latent)
        for word in words_of(label.text)
    )


def _context_words(index: FeatureIndex, stems: np.ndarray) -> _Entries:
    """Words that end in a context, each with the activation there or at the token before."""
    starts, token_words = index.array("starts"), index.array("token_words").astype(np.int64)
    centres, shares = index.array("contexts"), index.window_shares()
    window = centres[:, :, None] + np.arange(1 - BEFORE, BEHIND + 1)
    passage = np.searchsorted(starts, centres, side="right") - 1
    inside = (window >= starts[passage][:, :, None]) & (window < starts[passage + 1][:, :, None])
    words = np.where(inside, token_words[window.clip(0, len(token_words) - 1)], 0)
    latents, contexts, at = np.nonzero((words > 0) & (centres != NONE)[:, :, None])
    before = shares[latents, contexts, np.maximum(0, at - 1)]
    weights = np.maximum(shares[latents, contexts, at], before).clip(min=_SILENT)
    return latents, stems[words[latents, contexts, at] - 1], weights


def _token_words(index: FeatureIndex, numbers: Numbered) -> _Entries:
    return _counted_once(
        (latent, numbers[stem(word)])
        for (latent, _), piece in np.ndenumerate(index.array("raises"))
        for word in words_of(index.pieces[piece])
        if len(word) >= _SHORTEST_TOKEN
    )


def _counted_once(pairs: Iterable[tuple[int, int]]) -> _Entries:
    entries = list(pairs)
    latents, words = np.array(entries, dtype=np.int64).reshape(-1, 2).T
    return latents, words, np.ones(len(entries))
