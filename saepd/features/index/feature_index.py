"""An index of what every latent does over texts: one page for each, read where it lies."""

from __future__ import annotations

import json
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import safe_open

from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.features.index.contexts import BEFORE, DECILES, N_TOP, NONE, WIDTH
from saepd.features.index.given_labels import kept_labels
from saepd.features.index.labels import WHERE, Term
from saepd.features.index.latent_page import (
    Context,
    GivenLabel,
    LatentPage,
    Neighbour,
    whole_label,
)
from saepd.features.index.passages import NO_WORD
from saepd.features.index.statistics import PLACES, QUANTILES

if TYPE_CHECKING:
    import pandas as pd

INFO, ARRAYS, STRINGS = "index.json", "index.safetensors", "strings.json"

_KINDS = (*["top"] * N_TOP, *(f"{share:.0%}" for share in DECILES), "weakest")


class FeatureIndex:
    """What every latent of an SAE does over a collection of texts.

    Attributes:
        folder: Where it lies.
        info: What it is of: SAE, model, texts, and how much was read.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder, self.info = folder, info
        self._arrays = safe_open(folder / ARRAYS, framework="numpy")

    def __repr__(self) -> str:
        return (
            f"FeatureIndex({self.d_sae} latents at {self.info['hook_name']}, "
            f"{self.info['n_counted']} tokens, {str(self.folder)!r})"
        )

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.info["d_sae"])

    @cached_property
    def pieces(self) -> list[str]:
        """The different pieces of text that tokens stand for."""
        return self._strings["pieces"]

    @cached_property
    def words(self) -> list[str]:
        """The different words and signs of the texts."""
        return self._strings["words"]

    def given(self, latent: int) -> tuple[GivenLabel, ...]:
        """What others say that a latent is about."""
        return self._given_labels.get(latent, ())

    @property
    def has_given(self) -> bool:
        """Whether others gave any labels."""
        return bool(self._given_labels)

    @cached_property
    def _given_labels(self) -> dict[int, tuple[GivenLabel, ...]]:
        return kept_labels(self.folder)

    @cached_property
    def _strings(self) -> dict[str, list[str]]:
        return json.loads((self.folder / STRINGS).read_text(encoding="utf-8"))

    def array(self, name: str) -> np.ndarray:
        """One of the arrays of all latents, such as ``quantiles``."""
        return self._arrays.get_tensor(name)

    @cached_property
    def density(self) -> Float[np.ndarray, " d_sae"]:
        """Share of the tokens that count at which each latent fires."""
        return self.array("n_firings") / max(1, self.info["n_counted"])

    @cached_property
    def largest(self) -> Float[np.ndarray, " d_sae"]:
        """The largest activation of each latent; zero for one that never fires."""
        return self.array("quantiles")[:, -1]

    def frame(self) -> pd.DataFrame:
        """One row for each latent, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        scores, firings = self.array("label_scores"), self.array("n_firings")
        return as_frame(
            [
                {
                    "latent": latent,
                    "label": whole_label(self.terms(latent), int(firings[latent])),
                    "label_auroc": float(scores[latent]),
                    "n_firings": int(firings[latent]),
                    "density": float(self.density[latent]),
                    "largest": float(self.largest[latent]),
                }
                for latent in range(self.d_sae)
            ]
        )

    def terms(self, latent: int) -> list[Term]:
        """The label of a latent."""
        words, where, weights = (
            self._of_latent(f"label_{name}", latent) for name in ("words", "where", "weights")
        )
        return [
            Term(self.words[word], WHERE[kind], float(weight))
            for word, kind, weight in zip(words, where, weights, strict=True)
            if word != NO_WORD
        ]

    def label_auroc(self, latent: int) -> float | None:
        """How well a latent's label holds on texts held out; None where there are too few."""
        score = float(self._of_latent("label_scores", latent))
        return None if np.isnan(score) else score

    def page(self, latent: int) -> LatentPage:
        """All that is known of one latent.

        Raises:
            InputError: the SAE has no such latent.
        """
        self.check(latent)
        quantiles = self._of_latent("quantiles", latent).tolist()
        places = self._of_latent("places", latent) / np.maximum(1, self.info["counted_places"])
        return LatentPage(
            latent=latent,
            terms=self.terms(latent),
            label_auroc=self.label_auroc(latent),
            n_firings=int(self._of_latent("n_firings", latent)),
            density=float(self.density[latent]),
            quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
            histogram=self._of_latent("histogram", latent).tolist(),
            places=dict(zip(PLACES, places.tolist(), strict=True)),
            contexts=self.contexts(latent),
            together=self._neighbours("together", latent),
            alike=self._neighbours("alike", latent),
            raises=[self.pieces[i] for i in self._of_latent("raises", latent)],
            lowers=[self.pieces[i] for i in self._of_latent("lowers", latent)],
            given=self.given(latent),
        )

    def contexts(self, latent: int) -> list[Context]:
        """A latent's contexts: the strongest, one next to each decile, and the weakest."""
        largest = float(self.largest[latent])
        contexts = []
        bounds = self._of_latent("shown_bounds", latent)
        at, kept = (self._slice(f"shown_{name}", bounds) for name in ("at", "shares"))
        rows = zip(
            _KINDS, self._of_latent("contexts", latent), pairwise(bounds - bounds[0]), strict=True
        )
        for kind, centre, (first, last) in rows:
            if centre == NONE:
                continue
            passage = int(np.searchsorted(self._starts, centre, side="right")) - 1
            start, end = self._starts[passage : passage + 2]
            window = centre + 1 - BEFORE + np.arange(WIDTH)
            shares = np.zeros(WIDTH)
            shares[at[first:last]] = kept[first:last]
            inside = (window >= start) & (window < end)
            contexts.append(
                Context(
                    kind,
                    [self.pieces[i] for i in self._tokens[window[inside]]],
                    (shares[inside] * largest).tolist(),
                    int(inside[: BEFORE - 1].sum()),
                )
            )
        return contexts

    def context_passages(self, latent: int) -> Int[np.ndarray, " contexts"]:
        """The passage that each of a latent's contexts is in, in the order of `contexts`."""
        centres = self._of_latent("contexts", latent)
        return np.searchsorted(self._starts, centres[centres != NONE], side="right") - 1

    def passage(self, number: int) -> str:
        """The text of one passage, as far as it was read."""
        start, end = self._starts[number : number + 2]
        return "".join(self.pieces[i] for i in self._tokens[start:end])

    def window_shares(self) -> Float[np.ndarray, "d_sae contexts width"]:
        """Activations over all contexts' windows, as shares of each latent's largest."""
        bounds = self.array("shown_bounds")
        n_latents, n_contexts = bounds.shape[0], bounds.shape[1] - 1
        dense = np.zeros((n_latents * n_contexts, WIDTH), dtype=np.float32)
        rows = np.repeat(np.arange(len(dense)), np.diff(bounds, axis=1).ravel())
        dense[rows, self.array("shown_at")] = self.array("shown_shares")
        return dense.reshape(n_latents, n_contexts, WIDTH)

    def check(self, latent: object) -> None:
        """Refuse what is no latent of this index.

        Raises:
            InputError: the index has no such latent.
        """
        whole = isinstance(latent, int | np.integer) and not isinstance(latent, bool)
        if not whole or not 0 <= int(latent) < self.d_sae:  # type: ignore[call-overload]
            raise InputError(f"no latent {latent!r}: this SAE has latents 0 to {self.d_sae - 1}")

    @cached_property
    def _starts(self) -> np.ndarray:
        return self.array("starts")

    @cached_property
    def _tokens(self) -> np.ndarray:
        return self.array("tokens")

    def _of_latent(self, name: str, latent: int) -> np.ndarray:
        return self._arrays.get_slice(name)[latent]

    def _slice(self, name: str, bounds: np.ndarray) -> np.ndarray:
        first, last = int(bounds[0]), int(bounds[-1])
        # Where nothing is left behind it, safetensors has no empty slice.
        return self._arrays.get_slice(name)[first:last] if last > first else np.zeros(0, np.uint8)

    def _neighbours(self, name: str, latent: int) -> list[Neighbour]:
        ids, scores = (
            self._of_latent(f"{name}_ids", latent),
            self._of_latent(f"{name}_scores", latent),
        )
        return [Neighbour(int(i), float(s)) for i, s in zip(ids, scores, strict=True) if s > 0]
