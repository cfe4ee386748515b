"""What may be written: a dense vector, latents chosen for it, and the controls of that choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from saepd.fit.asked import Vector
from saepd.fit.penalised import Part, Ridge, Row, fit_both
from saepd.fit.sparse import Dictionary, Sparse, curvature, in_latents, in_these

# Latents chosen among all of an SAE's; as many at random; latents chosen on feedback whose
# perspectives were shuffled; and a dense vector, without a dictionary.
Kind: TypeAlias = Literal["latents", "random", "shuffled", "vector"]
Norms: TypeAlias = Float[np.ndarray, " sites"]


class Candidates(NamedTuple):
    """What was fitted, and what it is made of.

    Attributes:
        parts: Perspective -> its readout, and the vector that it writes, in residual units.
        latents: Perspective -> the latents that make up its vector; None for a dense one.
    """

    parts: Mapping[str, Part]
    latents: Mapping[str, Sparse] | None

    @property
    def vectors(self) -> dict[str, Vector]:
        """Perspective -> what is written, in residual units."""
        return {name: part.values for name, part in self.parts.items()}

    def shrunk(self, factor: float) -> Candidates:
        """The same with every amount multiplied by a factor."""
        return self._times(dict.fromkeys(self.parts, factor))

    def within(self, norms: Norms) -> Candidates:
        """The same with no vector longer at any site than the norm there, in residual units."""
        return self._times(
            {
                name: float(np.min(1 / np.maximum(_norms(vector, len(norms)) / norms, 1)))
                for name, vector in self.vectors.items()
            }
        )

    def _times(self, factors: Mapping[str, float]) -> Candidates:
        parts = {n: Part(p.readout, factors[n] * p.values) for n, p in self.parts.items()}
        if self.latents is None:
            return Candidates(parts, None)
        latents = {n: Sparse(s.ids, factors[n] * s.scales) for n, s in self.latents.items()}
        return Candidates(parts, latents)


def _norms(vector: Vector, n_sites: int) -> Norms:
    """Of what a vector writes at each site."""
    return np.linalg.norm(vector.reshape(n_sites, -1), axis=1)


@dataclass(frozen=True)
class Learner:
    """Fits every kind of candidates to some rows.

    Attributes:
        dictionary: What one unit of each latent writes.
        n_latents: How many of them each perspective's vector is made of at most.
        ridge: Penalties.
        size: Size of the effects of the residual stream's axes; see `effect_size`.
        max_norms: Largest norm of what a perspective writes at each site, in residual units.
        seed: Seed of random latents and of shuffling.
    """

    dictionary: Dictionary
    n_latents: int
    ridge: Ridge
    size: float
    max_norms: Norms
    seed: int

    def fit(self, kind: Kind, rows: Sequence[Row]) -> Candidates:
        """Fit one kind to rows whose candidates are the axes of the residual stream.

        A dense vector is fitted for each perspective. Its latents are those that can write it with
        least loss of what the answers ask for, each perspective's chosen by itself.
        """
        rng = np.random.default_rng(self.seed)
        if kind == "shuffled":
            names = [rows[i].perspective for i in rng.permutation(len(rows))]
            rows = [replace(r, perspective=name) for r, name in zip(rows, names, strict=True)]
        dense = fit_both(rows, self.ridge, self.size)
        if kind == "vector":
            return Candidates(dense, None).within(self.max_norms)
        metric = curvature(rows, dense, self.ridge, self.size)
        vectors = np.stack([part.values for part in dense.values()])
        if kind == "random":
            ids = [rng.permutation(len(self.dictionary))[: self.n_latents] for _ in vectors]
            chosen = in_these(ids, vectors, self.dictionary, metric)
        else:
            chosen = in_latents(vectors, self.dictionary, metric, self.n_latents)
        latents = dict(zip(dense, chosen, strict=True))
        parts = {
            name: Part(part.readout, latents[name].scales @ self.dictionary.rows(latents[name].ids))
            for name, part in dense.items()
        }
        return Candidates(parts, latents).within(self.max_norms)
