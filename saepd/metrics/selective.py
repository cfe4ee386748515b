"""What an uncertainty score is worth: answer the sure questions first, and see what goes wrong.

A question has an uncertainty, higher where the model is less sure, and a loss, such as 1 for a
wrong answer and 0 for a right one, or any distance to what people answered. Questions are answered
in the order of their uncertainty; the risk at a coverage is the mean loss of those answered.

Questions of equal uncertainty cannot be told apart, and no result depends on the order in which
they happen to be listed: where a threshold decides, they are answered together or not at all; where
an area is averaged over all coverages, they come in random order and the expectation is taken.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from saepd.common.errors import InputError
from saepd.metrics.distributions import finite, same_length

_PerQuestion: TypeAlias = Float[np.ndarray, " questions"]


class RiskCoverage(NamedTuple):
    """What each threshold gives, the strictest first; one point per distinct uncertainty.

    Attributes:
        threshold: Questions of at most this uncertainty are answered.
        coverage: Share of the questions that are answered, above 0 and up to 1.
        risk: Mean loss of the answered ones, in the unit of the loss.
    """

    threshold: Float[np.ndarray, " points"]
    coverage: Float[np.ndarray, " points"]
    risk: Float[np.ndarray, " points"]


def risk_coverage_curve(uncertainty: ArrayLike, losses: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).

    Args:
        uncertainty: Uncertainty of each question, in any unit, higher where less sure.
        losses: Loss of each question, 0 or more.

    Raises:
        InputError: a value is not finite, a loss is negative, or the two differ in length.
    """
    values, lost = _checked(uncertainty, losses)
    threshold, group, count = np.unique(values, return_inverse=True, return_counts=True)
    answered = np.cumsum(count)
    risk = np.cumsum(np.bincount(group, weights=lost)) / answered
    return RiskCoverage(threshold, answered / len(values), risk)


def aurc(uncertainty: ArrayLike, losses: ArrayLike) -> float:
    """Area under the risk-coverage curve, in the unit of the loss; lower is better.

    The mean over k of the mean loss of the k least uncertain questions, k from 1 to all of them
    (Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206, section 3). An uncertainty that is the
    same everywhere has the mean loss of all questions: that is what to beat.

    Raises:
        InputError: as ``risk_coverage_curve``.
    """
    values, lost = _checked(uncertainty, losses)
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    # In random order each place of a tie holds, in expectation, the mean loss of the tie.
    expected = np.repeat(np.bincount(group, weights=lost) / count, count)
    return float((np.cumsum(expected) / np.arange(1, len(lost) + 1)).mean())


def coverage_at_risk(uncertainty: ArrayLike, losses: ArrayLike, *, risk: float = 0.05) -> float:
    """Largest share of the questions that a threshold can answer at no more than the given risk.

    0 where no threshold keeps the risk. The threshold is chosen on the same losses, so this
    describes the score and promises nothing for other questions (for a promise see Geifman and
    El-Yaniv 2017, arXiv 1705.08500).

    Args:
        uncertainty: Uncertainty of each question, in any unit, higher where less sure.
        losses: Loss of each question, 0 or more.
        risk: The mean loss allowed, in the unit of the loss: .05 allows one wrong answer in 20.

    Raises:
        InputError: as ``risk_coverage_curve``, or a negative risk.
    """
    if not risk >= 0:
        raise InputError(f"the risk is {risk}: it must not be negative")
    curve = risk_coverage_curve(uncertainty, losses)
    # A mean of one wrong in 20 is not always .05 to the last digit.
    kept = curve.coverage[curve.risk <= risk + 1e-12]
    return float(kept.max(initial=0.0))


def _checked(uncertainty: ArrayLike, losses: ArrayLike) -> tuple[_PerQuestion, _PerQuestion]:
    values, lost = finite("uncertainty", uncertainty), finite("losses", losses)
    same_length(uncertainty=values, losses=lost)
    for i in np.flatnonzero(lost < 0):
        raise InputError(f"losses[{i}] is {lost[i]}: a loss must not be negative")
    return values, lost
