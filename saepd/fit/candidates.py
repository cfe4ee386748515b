"""What may be written: a dense vector, latents chosen for it, and the controls of that choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from saepd.fit.asked import Vector
from saepd.fit.penalised import Part, Ridge, Row, Values, fit_both, in_units
from saepd.fit.sparse import Units, curvature, select_latents

# Latents chosen among all of an SAE's; as many at random; latents chosen on feedback whose
# perspectives were shuffled; and a dense vector, without a dictionary.
Kind: TypeAlias = Literal["latents", "random", "shuffled", "vector"]


class Candidates(NamedTuple):
    """What was fitted, and what it is made of.

    Attributes:
        latents: Ids of the latents; None for axes of the residual stream.
        units: What one unit of each candidate writes.
        parts: Perspective -> its readout, and how much of each candidate it writes.
    """

    latents: Int[np.ndarray, " latents"] | None
    units: Units
    parts: Mapping[str, Part]

    @property
    def vectors(self) -> dict[str, Vector]:
        """Perspective -> what is written, in residual units."""
        return {name: part.values @ self.units for name, part in self.parts.items()}

    def shrunk(self, factor: float) -> Candidates:
        """The same with every amount multiplied by a factor."""
        return self._each(lambda values: factor * values)

    def within(self, norm: float) -> Candidates:
        """The same with no vector longer than a norm, in residual units."""
        return self._each(
            lambda values: values * min(1.0, norm / (np.linalg.norm(values @ self.units) or 1.0))
        )

    def _each(self, change: Callable[[Values], Values]) -> Candidates:
        amounts: dict[int, Values] = {}
        for part in self.parts.values():
            if id(part.values) not in amounts:
                amounts[id(part.values)] = change(part.values)
        parts = {n: Part(p.readout, amounts[id(p.values)]) for n, p in self.parts.items()}
        return self._replace(parts=parts)


@dataclass(frozen=True)
class Learner:
    """Fits every kind of candidates to some rows.

    Attributes:
        dictionary: What one unit of each latent writes.
        n_latents: How many of them are chosen at most.
        ridge: Penalties.
        size: Of the effects of the axes of the residual stream; see `effect_size`.
        max_norm: Largest norm of what a perspective writes, in residual units.
        seed: Of random latents and of shuffling.
    """

    dictionary: Units
    n_latents: int
    ridge: Ridge
    size: float
    max_norm: float
    seed: int

    def fit(self, kind: Kind, rows: Sequence[Row]) -> Candidates:
        """Fit one kind to rows whose candidates are the axes of the residual stream.

        Latents are those in whose span the dense vectors of the same rows can be written with
        least loss; then their scales are fitted to the rows.
        """
        rng = np.random.default_rng(self.seed)
        if kind == "shuffled":
            names = [rows[i].perspective for i in rng.permutation(len(rows))]
            rows = [replace(r, perspective=name) for r, name in zip(rows, names, strict=True)]
        if kind == "random":
            latents = rng.permutation(len(self.dictionary))[: self.n_latents]
            return self._of_latents(rows, latents)
        dense = fit_both(rows, self.ridge, self.size)
        if kind == "vector":
            axes = np.eye(self.dictionary.shape[1])
            return Candidates(None, axes, dense).within(self.max_norm)
        metric = curvature(rows, dense, self.ridge, self.size)
        shared = np.mean([part.values for part in dense.values()], axis=0)
        wanted = np.stack([shared, *(part.values - shared for part in dense.values())])
        latents = select_latents(wanted, self.dictionary, metric, self.n_latents)
        return self._of_latents(rows, latents)

    def _of_latents(self, rows: Sequence[Row], latents: Int[np.ndarray, " latents"]) -> Candidates:
        units = self.dictionary[latents]
        parts = fit_both(in_units(rows, units), self.ridge, self.size)
        return Candidates(latents, units, parts).within(self.max_norm)
