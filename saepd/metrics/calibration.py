"""Whether probabilities mean what they say: of the label, and of the option that is chosen."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from saepd.common.errors import InputError
from saepd.metrics.classification import accuracy
from saepd.metrics.distributions import Distributions, Labels, PerQuestion, labelled

Binning: TypeAlias = Literal["equal-width", "equal-mass"]


class Reliability(NamedTuple):
    """A reliability diagram, lowest confidence first; bins that hold no question are left out.

    Attributes:
        confidence: Mean probability of the most probable option, per bin.
        accuracy: Share of right answers, per bin.
        n_questions: Questions, per bin.
    """

    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    n_questions: Int[np.ndarray, " bins"]


def nll(predicted: Distributions, labels: Labels) -> PerQuestion:
    """Negative log-likelihood of the label of each question, nats; inf where it had probability 0.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    with np.errstate(divide="ignore"):
        return -np.log([p[label] for p, label in labelled(predicted, labels)])


def brier(predicted: Distributions, labels: Labels) -> PerQuestion:
    """Squared distance to the label of each question, summed over options: 0 to 2 (Brier 1950).

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    # |p - e_y|^2 = |p|^2 - 2 p_y + 1
    return np.array([p @ p - 2 * p[label] + 1 for p, label in labelled(predicted, labels)])


def reliability_diagram(
    predicted: Distributions,
    labels: Labels,
    *,
    n_bins: int = 15,
    binning: Binning = "equal-width",
) -> Reliability:
    """Confidence against accuracy, in bins of the confidence.

    The confidence is the probability of the most probable option; options that tie for it share
    the credit, as in ``accuracy``.

    Args:
        predicted: One distribution per question.
        labels: The index of the right option per question.
        n_bins: Bins, the empty ones included.
        binning: ``equal-width`` cuts 0 to 1 into equal parts, closed above (Guo et al. 2017, arXiv
            1706.04599, section 2). ``equal-mass`` puts nearly as many questions into each, which
            steadies the bins where most confidences are alike (Nguyen and O'Connor 2015, arXiv
            1508.05154). Questions of equal confidence share a bin, that of their mean rank, so
            that the order of the questions does not matter.

    Raises:
        InputError: a distribution is invalid, a label is none of its options, n_bins is not
            positive, or the binning is unknown.
    """
    confidence = np.array([p.max() for p, _ in labelled(predicted, labels)])
    bins = confidence_bins(confidence, n_bins, binning)
    count = np.bincount(bins, minlength=n_bins)
    held = count > 0
    sums = [
        np.bincount(bins, weights=values, minlength=n_bins)[held] / count[held]
        for values in (confidence, accuracy(predicted, labels))
    ]
    return Reliability(sums[0], sums[1], count[held])


def confidence_bins(
    confidence: PerQuestion, n_bins: int = 15, binning: Binning = "equal-width"
) -> Int[np.ndarray, " questions"]:
    """The bin of each confidence, from 0; see ``reliability_diagram``.

    Raises:
        InputError: n_bins is not positive, or the binning is unknown.
    """
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}: it must be at least 1")
    if binning not in get_args(Binning):
        raise InputError(f"unknown binning {binning!r}: there are {', '.join(get_args(Binning))}")
    if binning == "equal-width":
        place = np.ceil(confidence * n_bins) - 1
    else:
        place = np.floor((rankdata(confidence) - 0.5) / len(confidence) * n_bins)
    return np.clip(place, 0, n_bins - 1).astype(int)


def expected_calibration_error(
    predicted: Distributions,
    labels: Labels,
    *,
    n_bins: int = 15,
    binning: Binning = "equal-width",
) -> float:
    """How far confidence is from accuracy on average, 0 to 1.

    sum_b (n_b / n) |accuracy_b - confidence_b| over the bins of ``reliability_diagram`` (Guo et
    al. 2017, arXiv 1706.04599, section 2). With few questions in a bin it is above 0 by chance
    alone, the more so the more bins there are: compare only equal numbers of questions and bins.

    Raises:
        InputError: as ``reliability_diagram``.
    """
    bins = reliability_diagram(predicted, labels, n_bins=n_bins, binning=binning)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(gaps @ bins.n_questions / bins.n_questions.sum())
