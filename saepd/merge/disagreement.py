"""How unsure one forward pass is, read off distributions that are already there.

Every score is higher where the model is less sure. Distributions are log-probs in nats over the
last dimension, the options of a question or a vocabulary; leading dimensions are a batch. How much
the model would change its mind is a different question, and another pass: see ``epistemic``.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.merge.accepting import as_tensor
from saepd.merge.config import PROBABILITY_TOLERANCE

LogProbs: TypeAlias = "Float[Tensor, '*batch options']"
BranchOptions: TypeAlias = "Float[Tensor, '*batch branches options']"
PerItem: TypeAlias = "Float[Tensor, '*batch']"


def least_confidence(log_probs: LogProbs, *, temperature: float = 1.0) -> PerItem:
    """1 less the largest probability, from 0 (sure) to 1 - 1 / options (uniform).

    The largest probability is the baseline of Hendrycks and Gimpel (2017, arXiv 1610.02136). With
    a temperature other than 1 the log-probs are divided by it and normalised again (Guo et al.
    2017, arXiv 1706.04599, section 4.2); over two options this changes no ranking.

    Raises:
        InputError: fewer than two options, values that are not log-probs, or a temperature that is
            not positive.
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"the temperature is {temperature}: it must be positive and finite")
    scaled = (_checked(log_probs) / temperature).log_softmax(-1)
    return 1 - scaled.amax(-1).exp()


def entropy(log_probs: LogProbs) -> PerItem:
    """Entropy in nats, from 0 (sure) to the log of the number of options (uniform).

    Raises:
        InputError: fewer than two options, or values that are not log-probs.
    """
    return torch.special.entr(_checked(log_probs).exp()).sum(-1)


def small_margin(log_probs: LogProbs) -> PerItem:
    """1 less the gap between the two largest probabilities, from 0 (sure) to 1 (they tie).

    The gap is the margin of Scheffer et al. (2001).

    Raises:
        InputError: fewer than two options, or values that are not log-probs.
    """
    first, second = _checked(log_probs).exp().topk(2, -1).values.unbind(-1)
    return 1 - (first - second)


def branch_disagreement(branches: BranchOptions) -> PerItem:
    """Generalised Jensen-Shannon divergence of the branches: H(mean of p_i) - mean of H(p_i).

    All branches weigh the same (Lin 1991, eq. 5.1), and their order does not matter.

    Args:
        branches: Log-probs of the options under the base model and every branch, in nats,
            [..., branches, options]; an array or nested lists will do as well.

    Returns:
        One number an item, [...], in nats: from 0 (all branches say the same) to the log of the
        number of branches (they share no option).

    Raises:
        InputError: fewer than two options, or values that are not log-probs.
    """
    branches = as_tensor(branches)
    if branches.ndim < 2:
        raise InputError(
            f"branches have shape {tuple(branches.shape)}: expected [branches, options]"
        )
    p = _checked(branches).exp()
    mean = p.mean(-2)
    return (torch.special.entr(mean).sum(-1) - torch.special.entr(p).sum(-1).mean(-1)).clamp(min=0)


def perspective_disagreement(branches: BranchOptions) -> PerItem:
    """``branch_disagreement`` of the perspectives alone, without the base model in row 0.

    Where every perspective moves the same way the base stands apart and the branches disagree,
    although the perspectives do not.

    Args:
        branches: The base model first, then two perspectives or more.

    Raises:
        InputError: as ``branch_disagreement``, or fewer than two perspectives.
    """
    branches = as_tensor(branches)
    if branches.ndim < 2 or branches.shape[-2] < 3:
        raise InputError(
            f"branches have shape {tuple(branches.shape)}: expected [branches, options], with the "
            "base first and at least two perspectives"
        )
    return branch_disagreement(branches[..., 1:, :])


def kl_from_base(
    branches: Float[Tensor, "*batch branches options"],
) -> Float[Tensor, "*batch steered"]:
    """KL(base || branch) of every steered branch, in nats, 0 where a branch changes nothing.

    What steering costs a reader who expects the base (Kullback and Leibler 1951). Infinite where a
    branch rules out what the base allows.

    Args:
        branches: Log-probs in nats, the base first. They are taken as they are, so that NaN, which
            a branch that is no distribution holds, stays NaN.
    """
    base = branches[..., :1, :]
    # What the base rules out adds nothing, where -inf - -inf would be NaN.
    added = (base.exp() * (base - branches[..., 1:, :])).masked_fill(base.isneginf(), 0.0)
    # Of near-equal distributions rounding goes below 0.
    return added.sum(-1).clamp(min=0)


def _checked(log_probs: LogProbs) -> LogProbs:
    """The log-probs in double precision, normalised to it."""
    log_probs = as_tensor(log_probs)
    if log_probs.ndim < 1 or log_probs.shape[-1] < 2:
        raise InputError(
            f"log_probs have shape {tuple(log_probs.shape)}: expected two or more options"
        )
    log_probs = log_probs.double()
    total = log_probs.logsumexp(-1, keepdim=True)
    if not (total.abs() <= PROBABILITY_TOLERANCE).all():
        raise InputError(
            f"log_probs have logsumexp {float(total.abs().max()):.4g}, not 0: apply log_softmax "
            "over the last dimension"
        )
    return log_probs - total
