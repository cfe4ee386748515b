"""Look latents up: by words, by texts in which they fire, by texts for and against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import card, note, table
from saepd.features.index.by_texts import ReadTexts
from saepd.features.index.by_words import by_words, field_weights
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.latent_page import Context, GivenLabel, given_line, label_line
from saepd.features.index.reading import as_index

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


class FoundLatent(NamedTuple):
    """A latent that was looked up.

    Attributes:
        latent: Id of the latent.
        score: By words, the cosine of TF-IDF vectors, at most 1. By texts, how rare its strongest
            activation there is (negative decimal logarithm of the chance), mean over the texts
            less the mean over those against.
        label: Its label; see `LatentPage`.
        label_auroc: How well the label holds on texts held out; None where nobody knows.
        density: Share of the index's tokens at which it fires.
        found_in: By words, what they were found in most: its label, one that was given, contexts or
            tokens.
        context: By words, its strongest context; by texts, where in them it is strongest.
        given: What others say that it is about; none where the index was given no labels.
    """

    latent: int
    score: float
    label: str
    label_auroc: float | None
    density: float
    found_in: str | None
    context: Context | None
    given: tuple[GivenLabel, ...] = ()

    def __repr__(self) -> str:
        return f"FoundLatent({self.latent}: {self.label!r}, score {self.score:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """The latent as JSON values."""
        context = None if self.context is None else self.context._asdict()
        given = [label._asdict() for label in self.given]
        return self._asdict() | {"context": context, "given": given}


class FoundLatents(list[FoundLatent]):
    """Latents that were looked up, best first; a list that shows itself in a notebook."""

    def frame(self) -> pd.DataFrame:
        """One row for each latent, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                one._asdict()
                | {
                    "context": one.context and one.context.text,
                    "given": given_line(one.given),
                }
                for one in self
            ]
        )

    def _repr_html_(self) -> str:
        if not self:
            return card("latents", note("none"))
        columns = ["latent", "score", "label", "label AUROC", "context"]
        rows = [
            [
                one.latent,
                one.score,
                one.label,
                one.label_auroc,
                one.context and one.context.strip(one.context.activation),
            ]
            for one in self
        ]
        if any(one.given for one in self):
            columns.append("label given")
            rows = [[*row, given_line(one.given)] for row, one in zip(rows, self, strict=True)]
        return card("latents", table(columns, rows, digits=2))


def search(
    query: str | None = None,
    index: FeatureIndex | str | Path | None = None,
    *,
    texts: str | Sequence[str] = (),
    against: str | Sequence[str] = (),
    model: TransformerBridge | None = None,
    sae: SAE[Any] | None = None,
    n: int = 10,
) -> FoundLatents:
    """The latents that match best, by words or by texts.

    Args:
        query: Words to look for in labels, contexts and promoted tokens.
        index: The index, or its folder; if None, as `saepd.load_index` finds it.
        texts: Texts in which latents should fire more than usual.
        against: Texts in which they should not.
        model: The language model, which texts need.
        sae: The SAE that the index is of, which texts need.
        n: Latents that are returned at most.

    Returns:
        The latents, best first, each with its score (see `FoundLatent`).

    Raises:
        InputError: neither words nor texts, or both; an empty one; words that no latent has; an
            index of another SAE.
    """
    check_number("the number of latents to find", n, at_least=1, whole=True)
    for_, against = _texts("texts", texts), _texts("against", against)
    if (query is None) == (not for_):
        raise InputError("look latents up either by words or by texts: give one of the two")
    if against and not for_:
        raise InputError("texts against need texts for: give both")
    index = as_index(index, sae)
    if query is not None:
        return _by_words(index, query, n)
    if model is None or sae is None:
        raise InputError("to look up texts, the model and the SAE must be given, too")
    return by_texts(index, ReadTexts(model, sae, index, [*for_, *against]), len(for_), n)


def _texts(name: str, texts: str | Sequence[str]) -> list[str]:
    given = [texts] if isinstance(texts, str) else list(texts)
    for text in given:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"one of {name} is empty or no text: give it some words")
    return given


def _by_words(index: FeatureIndex, query: str, n: int) -> FoundLatents:
    fields, weights = by_words(index, query), field_weights(index)
    total: Float[np.ndarray, " d_sae"] = np.sum(
        [weights[name] * cosines for name, cosines in fields.items()], axis=0
    )
    best = [latent for latent in np.argsort(-total, kind="stable")[:n] if total[latent] > 0]
    latents = FoundLatents()
    for latent in map(int, best):
        most = max(weights, key=lambda name: weights[name] * fields[name][latent])
        contexts = index.contexts(latent)
        context = contexts[0] if contexts else None
        latents.append(_found_latent(index, latent, float(total[latent]), most, context))
    return latents


def by_texts(index: FeatureIndex, read: ReadTexts, n_for: int, n: int) -> FoundLatents:
    """The latents that fire more than usual in the first texts, and less in the others.

    Args:
        index: What latents usually do.
        read: What they do in the texts.
        n_for: How many of the texts are for them; the others are against.
        n: Latents that are returned at most.
    """
    score = read.surprise[:n_for].mean(0)
    if len(read.surprise) > n_for:
        score = score - read.surprise[n_for:].mean(0)
    best = [latent for latent in np.argsort(-score, kind="stable")[:n] if score[latent] > 0]
    latents = FoundLatents()
    for latent in map(int, best):
        strongest = int(read.surprise[:n_for, latent].argmax())
        context = read.context(latent, strongest)
        latents.append(_found_latent(index, latent, float(score[latent]), None, context))
    return latents


def in_text(index: FeatureIndex, read: ReadTexts, latent: int) -> FoundLatent:
    """One latent as it is in the first of the texts, where it may be silent.

    Raises:
        InputError: the SAE has no such latent.
    """
    index.check(latent)
    score = float(read.surprise[0, latent])
    return _found_latent(index, int(latent), score, None, read.context(latent, 0))


def _found_latent(
    index: FeatureIndex, latent: int, score: float, found_in: str | None, context: Context | None
) -> FoundLatent:
    return FoundLatent(
        latent=latent,
        score=score,
        label=label_line(index.terms(latent)),
        label_auroc=index.label_auroc(latent),
        density=float(index.density[latent]),
        found_in=found_in,
        context=context,
        given=index.given(latent),
    )
