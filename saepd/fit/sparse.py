"""Few latents in the place of a dense vector: those with which the answers lose least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from saepd.fit.penalised import Part, Ridge, Row, logits

Units = Float[np.ndarray, "units d_model"]
Curvature = Float[np.ndarray, "d_model d_model"]


class Sparse(NamedTuple):
    """A vector that is made of latents.

    Attributes:
        ids: Of the latents.
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


def in_latents(
    vectors: Float[np.ndarray, "vectors d_model"], units: Units, metric: Curvature, n: int
) -> list[Sparse]:
    """Each vector made up of latents, found one by one, so that little of the loss is lost.

    Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) in the metric of the loss:
    the next latent is the one along which what is still missing is largest, and the scales are
    those that leave least missing.

    Args:
        vectors: What should be written.
        units: What one unit of each latent writes.
        metric: From `curvature`.
        n: How many latents each vector is made of at most.

    Returns:
        Of each vector its latents, in the order in which they were found; none where it is zero.
    """
    root = np.linalg.cholesky(metric)
    atoms, targets = units @ root, vectors @ root
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
    return in_these([np.array(own, dtype=int) for own in chosen], vectors, units, metric)


def in_these(
    ids: Sequence[Int[np.ndarray, " latents"]],
    vectors: Float[np.ndarray, "vectors d_model"],
    units: Units,
    metric: Curvature,
) -> list[Sparse]:
    """Each vector made up of the given latents, with the scales that lose least."""
    root = np.linalg.cholesky(metric)
    return [
        Sparse(own, np.linalg.lstsq((units[own] @ root).T, vector @ root)[0])
        for own, vector in zip(ids, vectors, strict=True)
    ]
