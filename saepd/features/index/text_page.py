"""What latents do in one text, token by token: those that fire there more than usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import card, note, strip, table
from saepd.features.index.by_texts import ReadTexts
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.reading import as_index
from saepd.features.index.search import FoundLatents, by_texts, in_text

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, repr=False)
class TextPage:
    """Which latents fire in a text more than usual, and at which tokens.

    Attributes:
        text: Text that was read.
        tokens: The part of it that each token stands for.
        latents: The latents, the most unusual first, or as they were named.
        activations: What each does at each token, in SAE activation units.
        shares: Activations over the largest one that each latent has in the index; above 1 is more
            than was ever seen there.
    """

    text: str
    tokens: list[str]
    latents: FoundLatents
    activations: Float[np.ndarray, "latents tokens"]
    shares: Float[np.ndarray, "latents tokens"]

    def __repr__(self) -> str:
        unusual = ", ".join(f"{one.latent} ({one.label})" for one in self.latents[:3])
        return f"TextPage({len(self.tokens)} tokens; {unusual or 'nothing unusual fires'})"

    def frame(self) -> pd.DataFrame:
        """One row for each latent and token at which it fires, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                {
                    "latent": self.latents[i].latent,
                    "label": self.latents[i].label,
                    "place": int(place),
                    "token": self.tokens[place],
                    "activation": float(self.activations[i, place]),
                    "share": float(self.shares[i, place]),
                }
                for i, place in np.argwhere(self.activations > 0)
            ]
        )

    def _repr_html_(self) -> str:
        rows = [
            [
                one.latent,
                one.score,
                one.label,
                one.label_auroc,
                strip(list(zip(self.tokens, shares.tolist(), strict=True)), most=1.0, what="share"),
            ]
            for one, shares in zip(self.latents, self.shares, strict=True)
        ]
        columns = ["latent", "unusual", "label", "label AUROC", "where it fires"]
        return card(
            "latents that fire in this text more than usual",
            note("shaded by the share of the largest activation that each has in the index"),
            table(columns, rows, digits=2),
        )


def read_text(
    model: TransformerBridge,
    sae: SAE[Any],
    text: str,
    index: FeatureIndex | str | Path | None = None,
    *,
    latents: Sequence[int] | None = None,
    n: int = 10,
) -> TextPage:
    """Which latents fire in a text more than usual, and at which tokens.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        text: Text of any kind, no longer than the model's context.
        index: What latents usually do, or the folder of that index; if None, the one beside the
            SAE.
        latents: Ids of those that are shown, whether they fire or not; if None, those that fire
            more than usual.
        n: Latents that are shown at most, where none are named.

    Raises:
        InputError: no text, one beyond the model's context, an SAE without an index, or a latent
            that it does not have.
    """
    check_number("the number of latents to show", n, at_least=1, whole=True)
    if not isinstance(text, str) or not text.strip():
        raise InputError("the text is empty or no text: give it some words")
    index = as_index(index, sae)
    read = ReadTexts(model, sae, index, [text])
    if latents is None:
        shown = by_texts(index, read, 1, n)
    else:
        shown = FoundLatents(in_text(index, read, latent) for latent in latents)
    ids = [one.latent for one in shown]
    tokens = read.tokens(0)
    activations = np.array([read.activations(latent, 0) for latent in ids])
    activations = activations.reshape(len(ids), len(tokens))
    # What never fires in the index has no largest: any activation is more than that.
    largest = index.largest[ids][:, None].astype(float)
    over = np.where(activations > 0, np.inf, 0.0)
    shares = np.divide(activations, largest, out=over, where=largest > 0)
    return TextPage(text, tokens, shown, activations, shares)
