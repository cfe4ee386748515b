"""Latents by texts of one's own: which fire there more than usual, and on which tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from saepd.features.index.contexts import BEFORE, BEHIND
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.firings import Fired, fired
from saepd.features.index.latent_page import Context
from saepd.features.index.passages import token_spans
from saepd.features.index.statistics import QUANTILES
from saepd.models.tokens import prompt_ids

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


class ReadTexts:
    """What every latent does in some texts, beside what it usually does.

    Attributes:
        texts: The texts.
        surprise: How rare the strongest activation of each latent is in a text of that length, as
            the negative decimal logarithm of the chance of one at least as strong; 0 where the
            latent is silent.
    """

    def __init__(
        self,
        model: TransformerBridge,
        sae: SAE[Any],
        index: FeatureIndex,
        texts: Sequence[str],
    ) -> None:
        self.texts = list(texts)
        self._ids = [prompt_ids(model.tokenizer, text) for text in texts]
        self._tokenizer = model.tokenizer
        self._rows = fired(model, sae, self._ids)
        quantiles, n_firings = index.array("quantiles"), index.array("n_firings")
        self.surprise: Float[np.ndarray, "texts d_sae"] = np.stack(
            [_surprise(row, quantiles, n_firings, index.info["n_counted"]) for row in self._rows]
        )

    def tokens(self, text: int) -> list[str]:
        """The part of a text that each of its tokens stands for."""
        spans = token_spans(self._tokenizer, self.texts[text], self._ids[text])
        return [self.texts[text][a:b] for a, b in spans]

    def activations(self, latent: int, text: int) -> Float[np.ndarray, " tokens"]:
        """What a latent does at each token of a text, in SAE activation units."""
        latents, positions, values, _ = self._rows[text]
        activations = np.zeros(len(self._ids[text]))
        activations[positions[latents == latent]] = values[latents == latent]
        return activations

    def context(self, latent: int, text: int) -> Context | None:
        """The part of a text in which a latent is strongest; None where it is silent."""
        activations = self.activations(latent, text)
        if not activations.any():
            return None
        peak = int(activations.argmax())
        shown = slice(max(0, peak + 1 - BEFORE), peak + 1 + BEHIND)
        tokens, values = self.tokens(text)[shown], activations[shown].tolist()
        return Context("own", tokens, values, peak - shown.start)


def _surprise(
    row: Fired,
    quantiles: Float[np.ndarray, "d_sae quantiles"],
    n_firings: Float[np.ndarray, " d_sae"],
    n_counted: int,
) -> Float[np.ndarray, " d_sae"]:
    """How rare each latent's strongest activation would be in as many tokens of the index.

    Of n tokens, each exceeds an activation with the share r of the index's tokens that do. The
    chance that any does is 1 - exp(-n r). Beyond what was ever seen, r is below one firing.
    """
    latents, _, values, counted = row
    strongest = np.zeros(len(quantiles))
    np.maximum.at(strongest, latents, values)
    surprise = np.zeros(len(quantiles))
    for latent in np.unique(latents).tolist():
        seen = int(n_firings[latent])
        below = 0.0
        if seen:
            below = float(np.interp(strongest[latent], quantiles[latent], QUANTILES))
        # One firing more than were seen: what never happened is not impossible.
        rate = max(1.0, (1 - below) * seen) / (n_counted + 1)
        chance = -np.expm1(-rate * max(1, int(counted.sum())))
        surprise[latent] = -np.log10(chance)
    return surprise
