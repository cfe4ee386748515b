"""Few latents in the place of a dense vector: those with which the answers lose least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from saepd.fit.penalised import Part, Ridge, Row, logits

Units = Float[np.ndarray, "units d_model"]
# Vectors are what is written at each site, one after the other.
Vectors = Float[np.ndarray, "vectors sites*d_model"]
Curvature = Float[np.ndarray, "sites*d_model sites*d_model"]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """The latents of the SAEs of one site or several, numbered one SAE after the other.

    Attributes:
        units: For each site, what one unit of each of its latents writes there.
    """

    units: tuple[Units, ...]

    def __len__(self) -> int:
        return sum(map(len, self.units))

    @property
    def width(self) -> int:
        """How many numbers a vector has that is written at all sites."""
        return sum(of_site.shape[1] for of_site in self.units)

    def at(self, sites: Sequence[int]) -> Dictionary:
        """The latents of some of the sites."""
        return Dictionary(tuple(self.units[site] for site in sites))

    def times(
        self, matrix: Float[np.ndarray, "sites*d_model columns"]
    ) -> Float[np.ndarray, "latents columns"]:
        """What each latent writes, times a matrix."""
        ends = np.cumsum([of_site.shape[1] for of_site in self.units])[:-1]
        parts = zip(self.units, np.split(matrix, ends), strict=True)
        return np.concatenate([of_site @ part for of_site, part in parts])

    def rows(self, ids: Int[np.ndarray, " latents"]) -> Float[np.ndarray, "latents sites*d_model"]:
        """What one unit of some latents writes, at all sites."""
        rows = np.zeros((len(ids), self.width))
        column = 0
        for site, of_site in enumerate(self.units):
            here, within = self.at_site(ids, site)
            rows[here, column : column + of_site.shape[1]] = of_site[within]
            column += of_site.shape[1]
        return rows

    def at_site(
        self, ids: Int[np.ndarray, " latents"], site: int
    ) -> tuple[Bool[np.ndarray, " latents"], Int[np.ndarray, " here"]]:
        """Which of some latents are of a site, and their numbers within its own SAE."""
        first = sum(map(len, self.units[:site]))
        here = (ids >= first) & (ids < first + len(self.units[site]))
        return here, ids[here] - first


class Sparse(NamedTuple):
    """A vector that is made of latents.

    Attributes:
        ids: Ids of the latents.
        scales: How much of each is written, in units of the rows that it was made of.
    """

    ids: Int[np.ndarray, " latents"]
    scales: Float[np.ndarray, " latents"]


def curvature(
    rows: Sequence[Row], parts: Mapping[str, Part], ridge: Ridge, size: float
) -> Curvature:
    """How fast the penalised loss grows when vectors leave their best values, by squared unit.

    The mean over answers of G^T (diag(p) - p p^T) G, where G are the gradients of the options and p
    is the fitted answer, plus the ridge: the Gauss-Newton approximation of the Hessian.

    Args:
        rows: Answers, whose candidates are the axes of the residual stream.
        parts: Perspective -> what was fitted to them.
        ridge: Penalties; the smaller of the shared and the own one counts.
        size: See `effect_size`.
    """
    width = rows[0].effects.shape[1]
    roots = []
    for row in rows:
        p = softmax(logits(row, parts[row.perspective]))
        roots.append(np.sqrt(p)[:, None] * (row.effects - p @ row.effects))
    stacked = np.concatenate(roots)
    weight = min(ridge.shared, ridge.own or np.inf) * size**2
    return stacked.T @ stacked / len(rows) + weight * np.eye(width)


def in_latents(vectors: Vectors, dictionary: Dictionary, metric: Curvature, n: int) -> list[Sparse]:
    """Each vector made up of latents, found one by one, so that little of the loss is lost.

    Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) in the metric of the loss:
    the next latent is the one along which what is still missing is largest, and the scales are
    those that leave least missing.

    Args:
        vectors: What should be written.
        dictionary: What one unit of each latent writes.
        metric: From `curvature`.
        n: How many latents each vector is made of at most.

    Returns:
        Of each vector its latents, in the order in which they were found; none where it is zero.
    """
    root = np.linalg.cholesky(metric)
    atoms, targets = dictionary.times(root), vectors @ root
    atoms = atoms / np.maximum(np.linalg.norm(atoms, axis=1), 1e-12)[:, None]
    enough = 1e-12 * np.square(targets).sum(1)
    missing = targets.copy()
    chosen: list[list[int]] = [[] for _ in vectors]
    bases = [np.zeros((0, atoms.shape[1])) for _ in vectors]
    for _ in range(min(n, *atoms.shape)):
        # One product for all vectors, since reading the dictionary is what takes the time.
        along = np.abs(missing @ atoms.T)
        for i, basis in enumerate(bases):
            if np.square(missing[i]).sum() <= enough[i]:
                continue
            along[i, chosen[i]] = -1.0
            best = int(along[i].argmax())
            # Twice, since one projection leaves rounding errors of the size that is read next.
            new = atoms[best] - atoms[best] @ basis.T @ basis
            new = new - new @ basis.T @ basis
            chosen[i].append(best)
            length = np.linalg.norm(new)
            if length > 1e-9:
                bases[i] = np.vstack([basis, new / length])
                missing[i] = targets[i] - targets[i] @ bases[i].T @ bases[i]
    return in_these([np.array(ids, dtype=int) for ids in chosen], vectors, dictionary, metric)


def in_these(
    ids: Sequence[Int[np.ndarray, " latents"]],
    vectors: Vectors,
    dictionary: Dictionary,
    metric: Curvature,
) -> list[Sparse]:
    """Each vector made up of the given latents, with the scales that lose least."""
    root = np.linalg.cholesky(metric)
    return [
        Sparse(latents, np.linalg.lstsq((dictionary.rows(latents) @ root).T, vector @ root)[0])
        for latents, vector in zip(ids, vectors, strict=True)
    ]
