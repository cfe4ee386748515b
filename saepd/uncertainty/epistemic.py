"""How much a model changes its answer when one is put into its mouth.

Epistemic uncertainty by iterative prompting (Abbasi Yadkori et al. 2024, "To Believe or Not to
Believe Your LLM", arXiv 2406.02543v2). Two answers that people give to one question are independent
of each other, so where a model's second answer follows the one named in its prompt, the model
does not know: the mutual information of the two is a lower bound on how far it is from the truth
(section 4; here the paper's algorithm 3, which asks for n = 2 answers). A model that copies its
prompt has much of it; one that ignores the prompt has none, however many answers it thinks right.

Pure mathematics: what is asked of a model, and how, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from saepd.common.errors import InputError
from saepd.metrics.same_answer import cluster_by_f1
from saepd.uncertainty.config import EpistemicConfig

_TOLERANCE = 1e-3


def epistemic_uncertainty(mu1: ArrayLike, mu2: ArrayLike) -> float:
    """Mutual information of a first and a second answer over closed options, in nats.

    I = sum_it mu1_i mu2_it ln[mu1_i mu2_it / (mu1_i sum_j mu1_j mu2_jt)], exact over the options.
    The first answer has the distribution mu1, the second its mean under mu2, so I is at most the
    smaller of their entropies (Cover and Thomas 2006, section 2.4): 0 <= I <= ln(options). It is 0
    if and only if the second answer is the same whatever is named as the first (of those that
    have a probability), and ln(options) if mu1 is uniform and each option leads to another one for
    sure, such as its own copy.

    Args:
        mu1: [options], probability of each option after the plain prompt.
        mu2: [options (named), options (answered)], row i after the prompt that says "one answer is
            i". Rows may hold less than 1, where the model also allows other words: as in the paper
            they are scaled to sum to 1.

    Raises:
        InputError: fewer than two options, shapes that do not match, a value that is no
            probability, or a row without mass or with more than 1.
    """
    first, second = _mass("mu1", mu1, 1), _mass("mu2", mu2, 2)
    n = len(first)
    if n < 2:
        raise InputError(f"mu1 has {n} option(s): a choice needs at least two")
    if second.shape != (n, n):
        raise InputError(f"mu2 has shape {second.shape}: expected {(n, n)}, one row per option")
    return _estimate(first, second, 0.0, 0.0)


def sampled_epistemic_uncertainty(
    responses: Sequence[str],
    log_probs: ArrayLike,
    conditional_log_probs: ArrayLike,
    config: EpistemicConfig | None = None,
) -> float:
    """Estimate of the same quantity for free text, in nats: the paper's algorithm 3.

    Repeated responses count once, responses that match are one answer (``cluster_by_f1``) whose
    probabilities add up, and what was sampled is scaled to sum to 1. With gamma1 = gamma2 = 0 the
    estimate is the mutual information over the m answers found, 0 to ln(m); one answer gives 0.
    Other gammas keep it bounded as answers grow rare, and may take it a little below 0.

    Args:
        responses: As sampled, repetitions included.
        log_probs: [responses], of each response after the plain prompt, nats. Log-probs, because
            the probability of a long text is too small for a float.
        conditional_log_probs: [responses (named), responses (answered)], row i after the prompt
            that says "one answer is response i", nats. Only the rows of cluster centres are read:
            the others need not be computed.
        config: Similarity and gammas; the paper's by default.

    Raises:
        InputError: fewer than two responses, an empty one, shapes that do not match, or a row
            that is NaN, above 0 or without any mass.
    """
    config = config or EpistemicConfig()
    if len(responses) < 2:
        raise InputError(f"{len(responses)} response(s): the estimate needs at least two samples")
    k = len(responses)
    centre_of = cluster_by_f1(responses, config.similarity)
    unique = [i for i in range(k) if responses[i] not in responses[:i]]
    centres = sorted(set(centre_of))
    member = np.array([[centre_of[j] == centre for j in unique] for centre in centres], dtype=float)
    first = _row_log_probs("log_probs", log_probs, (k,))
    second = _row_log_probs("conditional_log_probs", conditional_log_probs, (k, k))
    rows = np.vstack([first, second[centres]])[:, unique]
    names = ["log_probs", *(f"conditional_log_probs[{i}]" for i in centres)]
    for name, row in zip(names, rows, strict=True):
        if np.isnan(row).any() or (row > _TOLERANCE).any() or np.isneginf(row).all():
            raise InputError(f"{name} is {row}: expected log-probs, at least one of them finite")
    scaled = np.exp(rows - logsumexp(rows, axis=1, keepdims=True)) @ member.T
    return _estimate(scaled[0], scaled[1:], config.gamma1, config.gamma2)


def _estimate(
    mu1: Float[np.ndarray, " answers"],
    mu2: Float[np.ndarray, "named answered"],
    gamma1: float,
    gamma2: float,
) -> float:
    """Step 6 of algorithm 3, on distributions that sum to 1."""
    joint = mu1[:, None] * mu2
    apart = mu1[:, None] * (mu1 @ mu2)
    held = joint > 0
    ratio = (joint[held] + gamma1) / (apart[held] + gamma2)
    estimate = float(joint[held] @ np.log(ratio))
    # Mutual information is not negative, but its rounding may be.
    return estimate if gamma1 or gamma2 else max(estimate, 0.0)


def _mass(name: str, values: ArrayLike, ndim: int) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != ndim:
        raise InputError(f"{name} has {array.ndim} dimension(s): expected {ndim}")
    total = array.sum(-1, keepdims=True)
    if not ((array >= 0).all() and (total <= 1 + _TOLERANCE).all()):
        raise InputError(f"{name} holds no probabilities: expected 0 or more, at most 1 in a row")
    if not (total > 0).all():
        raise InputError(f"{name} has a row that is all 0: no option has any probability there")
    return array / total


def _row_log_probs(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}: expected {shape}, one per response")
    return array
