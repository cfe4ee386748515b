"""Few latents in the place of a dense vector: those with which the answers lose least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from saepd.fit.penalised import Part, Ridge, Row, logits

Units = Float[np.ndarray, "units d_model"]
Curvature = Float[np.ndarray, "d_model d_model"]


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


def select_latents(
    vectors: Float[np.ndarray, "vectors d_model"], units: Units, metric: Curvature, n: int
) -> Int[np.ndarray, " latents"]:
    """Latents in whose span all the vectors can be written with little loss, found one by one.

    Simultaneous orthogonal matching pursuit (Tropp, Gilbert and Strauss 2006, algorithm 3.1, with
    the sum of squares in the place of the sum of moduli) in the metric of the loss: the next latent
    is the one along which what is still missing of all vectors is largest.

    Args:
        vectors: What should be written.
        units: What one unit of each latent writes.
        metric: From `curvature`.
        n: How many latents are taken at most.

    Returns:
        Ids, in the order in which they were found; none where the vectors are zero.
    """
    root = np.linalg.cholesky(metric)
    atoms, targets = units @ root, vectors @ root
    norms = np.linalg.norm(atoms, axis=1)
    atoms = atoms / np.maximum(norms, 1e-12)[:, None]
    enough = 1e-12 * np.square(targets).sum()
    missing, chosen = targets.copy(), np.zeros(0, dtype=int)
    basis = np.zeros((0, atoms.shape[1]))
    while len(chosen) < min(n, *atoms.shape) and np.square(missing).sum() > enough:
        along = np.square(atoms @ missing.T).sum(1)
        along[chosen] = -1.0
        best = int(np.argmax(along))
        # Twice, since one projection leaves rounding errors of the size that the next step reads.
        new = atoms[best] - atoms[best] @ basis.T @ basis
        new = new - new @ basis.T @ basis
        chosen = np.append(chosen, best)
        length = np.linalg.norm(new)
        if length > 1e-9:
            basis = np.vstack([basis, new / length])
            missing = targets - targets @ basis.T @ basis
    return chosen
