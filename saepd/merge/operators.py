"""Merge the branches of one forward pass into one next-token distribution.

Pure functions on log-probs in nats: branch 0 is the base model (l_b), the others are steered (l_i).
The last dimension may be a vocabulary or the options of a question; leading ones are a batch.
``merge_branches`` checks what it is given; the operators below it take checked, normalised float32
log-probs and return normalised ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.merge.accepting import as_tensor
from saepd.merge.config import PROBABILITY_TOLERANCE, MergeConfig

BranchLogProbs: TypeAlias = Float[Tensor, "*batch branches vocab"]
Merged: TypeAlias = Float[Tensor, "*batch vocab"]


_TINY = float(np.finfo(np.float32).tiny)
# What a probability of zero counts as where log-probs are added up: -inf - -inf would be NaN.
_LOG_TINY = math.log(_TINY)


def merge_branches(branches: BranchLogProbs, config: MergeConfig) -> Merged:
    """Merge branches by the operator that the config names.

    The operators, with their formulas and sources, are the functions of `saepd.merge.operators`.

    Args:
        branches: Log-probs in nats, [..., branches, vocab], log-softmaxed over the last dimension,
            which may be options as well; -inf is allowed. Branch 0 is the base, at least one
            steered branch follows. An array or nested lists will do as well.
        config: Name of the operator, and the numbers that it takes.

    Returns:
        Normalised log-probs, [..., vocab], nats, float32.

    Raises:
        InputError: what is no `MergeConfig`, too few dimensions, branches or options, values that
            are not log-probs (NaN, or a logsumexp further than 1e-3 from 0), or a number of weights
            that does not fit.
    """
    check_part("the merge", config, MergeConfig)
    return OPERATORS[config.operator](_checked(branches), config)


def pluralistic(branches: BranchLogProbs, *, alpha: float, tau: float, reading: str) -> Merged:
    """Move the base by what each branch changed: l = l_b + alpha * sum_i w_i (l_i - l_b).

    The three steps of Luo et al. (arXiv 2510.16257, pluralistic decoding): difference, entropy of
    the difference, displacement weighted by the magnitude of that entropy; ``pluralistic_weights``
    says how w is made. Alpha 0 gives the base. Alpha 1 gives a weighted geometric mean of the
    branches in which the base keeps a part: the log-odds of two plausible tokens stay between
    those of the branches. Above 1 they may go beyond.

    All of this happens within the plausible set: the tokens at least tau times as probable as the
    best one in some branch, the base included (the adaptive plausibility constraint of Li et al.,
    arXiv 2210.15097, over several models). The set as a whole keeps the probability that the base
    gives it, and so does every token outside: nothing the base allows becomes impossible, and
    branches that change nothing return the base. tau near 0 makes every option plausible.
    """
    plausible = _plausible(branches, tau)
    start, differences = _differences(branches, plausible)
    weights = _weights(start, differences, plausible, reading)
    moved = start + alpha * (weights[..., None] * differences).sum(-2)
    base = branches[..., 0, :]
    base_mass = base.masked_fill(~plausible, -math.inf).logsumexp(-1, keepdim=True)
    return torch.where(plausible, torch.log_softmax(moved, -1) + base_mass, base)


def pluralistic_weights(
    branches: BranchLogProbs, config: MergeConfig
) -> Float[Tensor, "*batch steered"]:
    """How much each steered branch counts in ``pluralistic``; the base counts what is left of 1.

    w_i = (m_i / n_i) / (max_j m_j + sum_j m_j / n_j), with m_i a magnitude and n_i the company of
    branch i: how many branches, itself included, carry its move, counted by the probability that
    they gain on the same tokens. So r copies of a branch share the weight of one, and the base
    weighs as much as the branch that changed most. K branches that changed equally much, each in
    its own way, weigh 1/(K+1) like the base, which is the plain geometric mean of all: base .9 Yes,
    one branch .9 No and one .9 Unclear merge to a third each.

    The readings of m_i, with d_i the difference of log-probs within the plausible set:

    - ``magnitude-sized``: the entropy of |d_i| scaled to sum to 1, times the probability that the
      branch moved (total variation to the base). An unchanged branch weighs nothing.
    - ``magnitude``: that entropy alone, 0 for an unchanged branch. It sees the shape of the change
      and not its size: a change by rounding can weigh as much as a large one.
    - ``softmax``: the entropy of softmax(d_i). An unchanged branch, whose softmax is uniform,
      weighs most of all.

    Raises:
        InputError: as `merge_branches`.
    """
    check_part("the merge", config, MergeConfig)
    branches = _checked(branches)
    plausible = _plausible(branches, config.tau)
    return _weights(*_differences(branches, plausible), plausible, config.reading)


def mixture(branches: BranchLogProbs) -> Merged:
    """Mean of the probabilities of all branches, the base included (linear opinion pool)."""
    return branches.logsumexp(-2) - math.log(branches.shape[-2])


def product(branches: BranchLogProbs) -> Merged:
    """Normalised mean of the log-probs of all branches, the base included (geometric mean)."""
    n = branches.shape[-2]
    return _log_linear(branches, branches.new_full((n,), 1 / n))


def weighted(branches: BranchLogProbs, weights: tuple[float, ...]) -> Merged:
    """Mixture of probabilities with given weights, one per branch, the base first.

    Raises:
        InputError: there are more or fewer weights than branches.
    """
    if len(weights) != branches.shape[-2]:
        raise InputError(
            f"{len(weights)} weights for {branches.shape[-2]} branches, base included: give one "
            "for each"
        )
    log_weights = branches.new_tensor(weights).log()[:, None]
    return torch.log_softmax((branches + log_weights).logsumexp(-2), -1)


def cad(branches: BranchLogProbs, alpha: float) -> Merged:
    """Context-aware decoding: (1 + alpha) l_s - alpha l_b, normalised.

    Shi et al. (arXiv 2305.14739, section 2), with steering in the place of the context. l_s is the
    normalised mean log-prob of the steered branches; with one branch it is that branch. It goes
    beyond the steered answer, away from the base.
    """
    steered = branches.shape[-2] - 1
    return _log_linear(branches, branches.new_tensor([-alpha] + [(1 + alpha) / steered] * steered))


def dcd(branches: BranchLogProbs) -> Merged:
    """Dynamic contrastive decoding, whose strengths come from the branches' confidence.

    l = l_s + beta (l_s - l_b) + gamma (l_high - l_low), with dynamic weights beta = max(0, c(l_s)
    - c(l_b)) and gamma = max(0, c(l_high) - c(l_low)); c is the gap between the two largest
    probabilities, l_high and l_low are the steered branches of least and of most entropy. From
    "DVD: Dynamic Contrastive Decoding" (Jin et al., EMNLP 2024, main 266) and its released code.

    There, branches are single documents and l_s is a run on all of them together, which has no
    counterpart here: l_s is the normalised mean log-prob of the steered branches. Entropy is over
    all options, not the top ten. Its special case for a very sure base is left out.
    """
    steered = branches[..., 1:, :]
    n = steered.shape[-2]
    together = _log_linear(steered, steered.new_full((n,), 1 / n))
    beta = (_confidence(together) - _confidence(branches[..., 0, :])).clamp(min=0)
    entropy = torch.special.entr(steered.exp()).sum(-1)
    confidence = _confidence(steered)
    high, low = entropy.argmin(-1, keepdim=True), entropy.argmax(-1, keepdim=True)
    gamma = (confidence.gather(-1, high) - confidence.gather(-1, low)).clamp(min=0)
    of_steered = ((1 + beta) / n)[..., None].repeat_interleave(n, -1)
    of_steered = of_steered.scatter_add(-1, high, gamma).scatter_add(-1, low, -gamma)
    return _log_linear(branches, torch.cat([-beta[..., None], of_steered], -1))


def saepd_released(branches: BranchLogProbs, alpha: float) -> Merged:
    """What the code published with arXiv 2510.16257 computes as its pluralistic decoding.

    Only for reproducing its numbers. It means to average the contrasts (1 + alpha) l_i - alpha l_b
    with weights softmax_i(entropy_i). But:

    1. the entropy sums exp(x) * min(x, 0) over the raw logits x of the top tokens; where those are
       positive, as is usual, every entropy is 0 and the weights are uniform;
    2. tau divides logits that only go into a top-k, whose order no tau changes;
    3. the uniform mean of contrasts is the contrast of the mean. So the whole is ``cad``, which
       goes beyond the steered answers instead of flattening.
    """
    return cad(branches, alpha)


OPERATORS: dict[str, Callable[[Tensor, MergeConfig], Tensor]] = {
    "pluralistic": lambda branches, config: pluralistic(
        branches, alpha=config.alpha, tau=config.tau, reading=config.reading
    ),
    "mixture": lambda branches, config: mixture(branches),
    "product": lambda branches, config: product(branches),
    "cad": lambda branches, config: cad(branches, config.alpha),
    "dcd": lambda branches, config: dcd(branches),
    "weighted": lambda branches, config: weighted(branches, config.weights),
    "saepd-released": lambda branches, config: saepd_released(branches, config.alpha),
}


def _checked(branches: Tensor) -> Tensor:
    """The branches in float32, normalised to its precision."""
    branches = as_tensor(branches)
    if branches.ndim < 2 or branches.shape[-2] < 2 or branches.shape[-1] < 2:
        raise InputError(
            f"branches have shape {tuple(branches.shape)}: expected [..., branches, options], with "
            "the base, at least one steered branch, and at least two options"
        )
    branches = branches.float()
    total = branches.logsumexp(-1, keepdim=True)
    wrong = ~(total[..., 0].abs() <= PROBABILITY_TOLERANCE)
    if wrong.any():
        index = wrong.nonzero()[0].tolist()
        value = total[tuple(index)].item()
        fault = "holds NaN" if math.isnan(value) else f"has logsumexp {value:.4g}, not 0"
        raise InputError(f"branches{index} {fault}: apply log_softmax over the last dimension")
    return branches - total


def _plausible(branches: Tensor, tau: float) -> Bool[Tensor, "*batch vocab"]:
    best = branches.amax(-1, keepdim=True)
    return (branches >= best + math.log(tau)).any(-2)


def _differences(branches: Tensor, plausible: Tensor) -> tuple[Tensor, Tensor]:
    """Given that the token is plausible: the base's log-probs, and how each branch differs."""
    floored = branches.clamp(min=_LOG_TINY)
    inside = torch.log_softmax(floored.masked_fill(~plausible[..., None, :], -math.inf), -1)
    # Outside, -inf - -inf is NaN and nothing differs.
    return inside[..., 0, :], (inside[..., 1:, :] - inside[..., :1, :]).nan_to_num(nan=0.0)


def _weights(start: Tensor, differences: Tensor, plausible: Tensor, reading: str) -> Tensor:
    start = start[..., None, :]
    gain = ((start + differences).exp() - start.exp()).clamp(min=0)
    moved = gain.sum(-1)
    # One branch at a time: all pairs at once would need steered^2 * vocab numbers.
    shared = sum(torch.minimum(gain, other[..., None, :]).sum(-1) for other in gain.unbind(-2))
    company = torch.where(moved > 0, shared / moved, 1.0)
    magnitude = _magnitude(differences, plausible, moved, reading)
    claim = magnitude / company
    whole = magnitude.amax(-1, keepdim=True) + claim.sum(-1, keepdim=True)
    return claim / whole.clamp(min=_TINY)


def _magnitude(differences: Tensor, plausible: Tensor, moved: Tensor, reading: str) -> Tensor:
    if reading == "softmax":
        shape = torch.softmax(differences.masked_fill(~plausible[..., None, :], -math.inf), -1)
        return torch.special.entr(shape).sum(-1)
    size = differences.abs()
    shape = size / size.sum(-1, keepdim=True).clamp(min=_TINY)
    entropy = torch.special.entr(shape).sum(-1)
    return {"magnitude": entropy, "magnitude-sized": entropy * moved}[reading]


def _confidence(log_probs: Tensor) -> Tensor:
    first, second = log_probs.exp().topk(2, -1).values.unbind(-1)
    return first - second


def _log_linear(branches: Tensor, coefficients: Tensor) -> Tensor:
    """Normalised sum of coefficient * log-prob; what no branch allows stays impossible."""
    total = (coefficients[..., None] * branches.clamp(min=_LOG_TINY)).sum(-2)
    impossible = branches.isneginf().all(-2)
    return torch.log_softmax(total.masked_fill(impossible, -math.inf), -1)
