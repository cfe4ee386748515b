"""Distances, scores and intervals over questions, each in the form its source gives it.

A set of distributions is one 1-D array per question, and questions may differ in their number of
options. Metrics of one question come back per question, so that they can be averaged, paired and
resampled; macro-F1 and calibration only exist for a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.special import rel_entr
from sklearn.metrics import f1_score

from saepd.errors import InputError

Distributions: TypeAlias = Sequence[ArrayLike] | Float[np.ndarray, "questions options"]
Labels: TypeAlias = Sequence[int] | Int[np.ndarray, " questions"]
PerQuestion: TypeAlias = Float[np.ndarray, " questions"]
_Options: TypeAlias = Float[np.ndarray, " options"]
_Values: TypeAlias = Float[np.ndarray, " values"]

_TOLERANCE = 1e-3


class Interval(NamedTuple):
    """A mean and the interval around it, in the unit of the values."""

    estimate: float
    low: float
    high: float


def js_divergence(
    predicted: Distributions, gold: Distributions, *, base: float = 2.0
) -> PerQuestion:
    """Jensen-Shannon divergence (Lin 1991) of each question; in bits at base 2, nats at base e.

    D(p || m) / 2 + D(q || m) / 2 with m = (p + q) / 2, from 0 to log_base(2).

    Raises:
        InputError: a distribution is invalid, the two sets do not match, or base is not above 1.
    """
    if not base > 1:
        raise InputError(f"the base of the logarithm is {base}: it must be above 1")
    divergences = [
        (rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / 2
        for p, q in _paired(predicted, gold)
    ]
    # For near-equal distributions rounding goes below 0; scipy's jensenshannon gives NaN there.
    return np.maximum(divergences, 0.0) / np.log(base)


def js_distance(predicted: Distributions, gold: Distributions, *, base: float = 2.0) -> PerQuestion:
    """Jensen-Shannon distance of each question: the square root of the divergence.

    A metric (Endres and Schindelin 2003), from 0 to 1 at base 2; what survey-alignment papers
    report and what ``scipy.spatial.distance.jensenshannon`` returns.

    Raises:
        InputError: as ``js_divergence``.
    """
    return np.sqrt(js_divergence(predicted, gold, base=base))


def total_variation(predicted: Distributions, gold: Distributions) -> PerQuestion:
    """Half the summed absolute difference of each question: the share that would have to move.

    Raises:
        InputError: a distribution is invalid, or the two sets do not match.
    """
    return np.array([np.abs(p - q).sum() / 2 for p, q in _paired(predicted, gold)])


def nll(predicted: Distributions, labels: Labels) -> PerQuestion:
    """Negative log-likelihood of the label of each question, nats; inf where it had probability 0.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    with np.errstate(divide="ignore"):
        return -np.log([p[label] for p, label in _labelled(predicted, labels)])


def brier(predicted: Distributions, labels: Labels) -> PerQuestion:
    """Squared distance to the label of each question, summed over options: 0 to 2 (Brier 1950).

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    # |p - e_y|^2 = |p|^2 - 2 p_y + 1
    return np.array([p @ p - 2 * p[label] + 1 for p, label in _labelled(predicted, labels)])


def accuracy(predicted: Distributions, labels: Labels) -> PerQuestion:
    """1 for each question whose most probable option is the label, else 0.

    Tied options share the credit: a uniform distribution over three scores a third, whatever the
    label is, instead of winning wherever the first option happens to be right.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    best = [(np.isclose(p, p.max(), rtol=1e-9, atol=0), y) for p, y in _labelled(predicted, labels)]
    return np.array([tied[label] / tied.sum() for tied, label in best])


def macro_f1(predicted: Distributions, labels: Labels) -> float:
    """Mean F1 over the classes that are some question's label or prediction.

    A class that is never predicted, or never the label, has F1 0. Of tied options the first is
    predicted.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    pairs = _labelled(predicted, labels)
    answers = [int(p.argmax()) for p, _ in pairs]
    return float(f1_score([label for _, label in pairs], answers, average="macro"))


def expected_calibration_error(
    predicted: Distributions, labels: Labels, *, n_bins: int = 15
) -> float:
    """How far confidence is from accuracy on average, 0 to 1.

    Questions are binned by the probability of their most probable option, in equal widths closed
    above; the result is sum_b (n_b / n) |accuracy_b - confidence_b| (Guo et al. 2017, arXiv
    1706.04599, section 2).

    Raises:
        InputError: a distribution is invalid, a label is none of its options, or n_bins is not
            positive.
    """
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}: it must be at least 1")
    confidence = np.array([p.max() for p, _ in _labelled(predicted, labels)])
    bins = np.clip(np.ceil(confidence * n_bins) - 1, 0, n_bins - 1).astype(int)
    # n_b |accuracy_b - confidence_b| is the absolute sum of the bin's differences.
    gaps = np.bincount(bins, weights=accuracy(predicted, labels) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def bootstrap_interval(
    values: ArrayLike,
    *,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over questions (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One finite number per answer, in any unit.
        questions: The question of each value, where one has several; whole questions are drawn
            then, because answers to the same question are not independent. None: each value is a
            question of its own.
        n: Draws.
        level: Coverage, in (0, 1).
        seed: Of the draws.

    Raises:
        InputError: a value is not finite, the question ids do not match the values, there are
            fewer than two questions, or n or level is out of range.
    """
    array = _finite("values", values)
    if n < 1 or not 0 < level < 1:
        raise InputError(f"n is {n} and level is {level}: n must be positive, level in (0, 1)")
    ids = np.arange(len(array)) if questions is None else _ids(questions)
    if len(ids) != len(array):
        raise InputError(f"there are {len(array)} values but {len(ids)} question ids")
    counts = np.bincount(ids)
    if len(counts) < 2:
        raise InputError(f"{len(counts)} question(s): a bootstrap over questions needs two or more")
    sums = np.bincount(ids, weights=array)
    draws = np.random.default_rng(seed).integers(len(counts), size=(n, len(counts)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap of the mean of first - second, value by value on the same questions.

    Arguments and errors as ``bootstrap_interval``; the two must also be of one length.
    """
    a, b = _finite("first", first), _finite("second", second)
    if len(a) != len(b):
        raise InputError(f"first has {len(a)} values and second {len(b)}: they must be paired")
    return bootstrap_interval(a - b, questions=questions, n=n, level=level, seed=seed)


def _paired(predicted: Distributions, gold: Distributions) -> list[tuple[_Options, _Options]]:
    p, q = _normalised("predicted", predicted), _normalised("gold", gold)
    if len(p) != len(q):
        raise InputError(f"predicted has {len(p)} questions and gold {len(q)}: give one for each")
    for i, (left, right) in enumerate(zip(p, q, strict=True)):
        if len(left) != len(right):
            raise InputError(
                f"predicted[{i}] has {len(left)} options and gold[{i}] {len(right)}: give the same"
            )
    return list(zip(p, q, strict=True))


def _labelled(predicted: Distributions, labels: Labels) -> list[tuple[_Options, int]]:
    p = _normalised("predicted", predicted)
    if len(p) != len(labels):
        raise InputError(f"predicted has {len(p)} questions but there are {len(labels)} labels")
    for i, (distribution, label) in enumerate(zip(p, labels, strict=True)):
        # A negative label would silently count from the end.
        if not (isinstance(label, int | np.integer) and 0 <= label < len(distribution)):
            raise InputError(
                f"labels[{i}] is {label}: expected an option's index, 0 to {len(distribution) - 1}"
            )
    return [(distribution, int(label)) for distribution, label in zip(p, labels, strict=True)]


def _normalised(name: str, distributions: Distributions) -> list[_Options]:
    arrays = [np.asarray(d, dtype=float) for d in distributions]
    if not arrays:
        raise InputError(f"{name} is empty: expected one distribution per question")
    for i, p in enumerate(arrays):
        if p.ndim != 1 or len(p) < 2:
            raise InputError(f"{name}[{i}] has shape {p.shape}: expected two or more options")
        if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) <= _TOLERANCE):
            raise InputError(
                f"{name}[{i}] is {np.array2string(p, precision=4, threshold=8)}: expected "
                "probabilities that are finite, not negative, and sum to 1"
            )
    return [p / p.sum() for p in arrays]


def _finite(name: str, values: ArrayLike) -> _Values:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}: expected one number per answer")
    for i in np.flatnonzero(~np.isfinite(array))[:1]:
        raise InputError(f"{name}[{i}] is {array[i]}: expected a finite number")
    return array


def _ids(questions: Sequence[object]) -> Int[np.ndarray, " values"]:
    number = {question: i for i, question in enumerate(dict.fromkeys(questions))}
    return np.array([number[question] for question in questions])
