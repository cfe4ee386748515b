"""Scores of predictions that are right or wrong: over options, and over yes-or-no labels.

Where there is a positive class, a question has a score, higher where the positive class is more
probable (a probability, or any number that ranks like one), and a label, 1 for positive and 0 for
negative. It is predicted positive where its score is at least the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score, roc_auc_score

from saepd.common.errors import InputError
from saepd.metrics.distributions import (
    Distributions,
    Labels,
    PerQuestion,
    finite,
    labelled,
    same_length,
)

BinaryLabels: TypeAlias = Sequence[int] | Sequence[bool] | np.ndarray

_Scores: TypeAlias = Float[np.ndarray, " questions"]
_Positive: TypeAlias = Bool[np.ndarray, " questions"]


def accuracy(predicted: Distributions, labels: Labels) -> PerQuestion:
    """1 for each question whose most probable option is the label, else 0.

    Tied options share the credit: a uniform distribution over three scores a third, whatever the
    label is, instead of winning wherever the first option happens to be right.

    Raises:
        InputError: a distribution is invalid, or a label is none of its options.
    """
    best = [(np.isclose(p, p.max(), rtol=1e-9, atol=0), y) for p, y in labelled(predicted, labels)]
    return np.array([tied[label] / tied.sum() for tied, label in best])


def binary_macro_f1(scores: ArrayLike, labels: BinaryLabels, *, threshold: float = 0.5) -> float:
    """Mean of the F1 of the positive and of the negative class, 0 to 1.

    A class that is never predicted has F1 0.

    Raises:
        InputError: an invalid score or label, or labels of one class only.
    """
    values, positive = _both_classes("macro-F1", scores, labels)
    return float(f1_score(positive, values >= threshold, average="macro"))


def positive_f1(scores: ArrayLike, labels: BinaryLabels, *, threshold: float = 0.5) -> float:
    """F1 of the positive class, 0 to 1; 0 where it is never predicted.

    Raises:
        InputError: an invalid score or label, or no positive label.
    """
    values, positive = _with("F1 of the positive class", scores, labels, "positive")
    return float(f1_score(positive, values >= threshold))


def precision(scores: ArrayLike, labels: BinaryLabels, *, threshold: float = 0.5) -> float:
    """Share of the questions predicted positive that are; 0 where none is predicted positive.

    Raises:
        InputError: an invalid score or label.
    """
    values, positive = _checked(scores, labels)
    chosen = values >= threshold
    return float(positive[chosen].mean()) if chosen.any() else 0.0


def recall(scores: ArrayLike, labels: BinaryLabels, *, threshold: float = 0.5) -> float:
    """Share of the positive questions that are predicted positive.

    Raises:
        InputError: an invalid score or label, or no positive label.
    """
    values, positive = _with("recall", scores, labels, "positive")
    return float((values[positive] >= threshold).mean())


def false_positive_rate(
    scores: ArrayLike, labels: BinaryLabels, *, threshold: float = 0.5
) -> float:
    """Share of the negative questions that are predicted positive.

    Raises:
        InputError: an invalid score or label, or no negative label.
    """
    values, positive = _with("the false positive rate", scores, labels, "negative")
    return float((values[~positive] >= threshold).mean())


def auroc(scores: ArrayLike, labels: BinaryLabels) -> float:
    """Area under the ROC curve: how often a positive question scores above a negative one.

    From 0 to 1, ties counting half (Hanley and McNeil 1982); .5 for a score that says nothing.

    Raises:
        InputError: an invalid score or label, or labels of one class only.
    """
    values, positive = _both_classes("AUROC", scores, labels)
    return float(roc_auc_score(positive, values))


def threshold_at_recall(scores: ArrayLike, labels: BinaryLabels, recall: float) -> float:
    """The highest threshold whose recall is at least the given one, in the unit of the scores.

    Lowering a threshold can only add false positives, so this is the one with the fewest. It is
    the score of a positive question. Questions that tie with it are predicted positive with it,
    the negative ones too, so that the recall reached may be well above the one asked for.

    Args:
        scores: Score of each question.
        labels: 1 or 0 per question.
        recall: Share of the positive questions to find, above 0 and up to 1.

    Raises:
        InputError: an invalid score or label, no positive label, or a recall out of range.
    """
    if not 0 < recall <= 1:
        raise InputError(f"the recall is {recall}: it must be above 0 and at most 1")
    values, positive = _with("a threshold at a recall", scores, labels, "positive")
    positive_scores = np.sort(values[positive])[::-1]
    # .7 * 10 is a little more than 7 on some machines, and 8 questions are not asked for.
    return float(positive_scores[math.ceil(recall * len(positive_scores) - 1e-9) - 1])


def false_positive_rate_at_recall(scores: ArrayLike, labels: BinaryLabels, recall: float) -> float:
    """Lowest false positive rate among the thresholds whose recall is at least the given one.

    The threshold is chosen on the same labels, which flatters it: for a fair number choose it on
    other questions by ``threshold_at_recall`` and give it to ``false_positive_rate``.

    Raises:
        InputError: as ``threshold_at_recall``, or no negative label.
    """
    threshold = threshold_at_recall(scores, labels, recall)
    return false_positive_rate(scores, labels, threshold=threshold)


def accuracy_by_functionality(
    scores: ArrayLike,
    labels: BinaryLabels,
    functionalities: Sequence[str] | np.ndarray,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Share of right predictions for each kind of test case, in the order they first appear.

    HateCheck's own table (Röttger et al. 2021, arXiv 2012.15606): all cases of a functionality
    have one label, so a model that always answers the same gets all of one and none of another.

    Raises:
        InputError: an invalid score or label, or functionalities that do not match them.
    """
    values, positive = _checked(scores, labels)
    same_length(scores=values, functionalities=functionalities)
    right = (values >= threshold) == positive
    names = np.asarray(functionalities)
    return {str(name): float(right[names == name].mean()) for name in dict.fromkeys(names.tolist())}


def _checked(scores: ArrayLike, labels: BinaryLabels) -> tuple[_Scores, _Positive]:
    values, classes = finite("scores", scores), np.asarray(labels)
    same_length(scores=values, labels=classes)
    for i in np.flatnonzero(~np.isin(classes, (0, 1))):
        raise InputError(f"labels[{i}] is {classes[i]}: expected 1 (positive) or 0 (negative)")
    return values, classes.astype(bool)


def _with(
    what: str, scores: ArrayLike, labels: BinaryLabels, wanted: str
) -> tuple[_Scores, _Positive]:
    values, positive = _checked(scores, labels)
    if not (positive if wanted == "positive" else ~positive).any():
        raise InputError(f"no label is {wanted}: {what} needs at least one")
    return values, positive


def _both_classes(what: str, scores: ArrayLike, labels: BinaryLabels) -> tuple[_Scores, _Positive]:
    values, positive = _checked(scores, labels)
    if positive.all() or not positive.any():
        only = "positive" if positive.all() else "negative"
        raise InputError(f"all labels are {only}: {what} needs both classes")
    return values, positive
