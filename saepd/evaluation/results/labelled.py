"""Metrics of tasks with a positive class, such as hate speech or misinformation.

An item's label is the most probable option of its gold. Where the positive class ties with another
for it, the label is positive: half of the people asked is enough to look at it. An item is
predicted positive from a probability of .5 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from saepd.common.errors import InputError
from saepd.evaluation.results.parts import Prediction
from saepd.metrics import classification
from saepd.metrics.calibration import brier, expected_calibration_error
from saepd.tasks.task import Task

if TYPE_CHECKING:
    from saepd.evaluation.methods.method import Method

THRESHOLD = 0.5
# What share of the positives is to be found where false alarms are counted.
_RECALLS = (0.25, 0.5)


def label_of(gold: Sequence[float], positive: int) -> int:
    """Index of the label: the largest share, of ties the positive class, else the first."""
    shares = np.asarray(gold)
    best = np.isclose(shares, shares.max(), rtol=1e-9, atol=0)
    return positive if best[positive] else int(best.argmax())


def scores_and_labels(
    rows: Sequence[Prediction], task: Task
) -> tuple[Float[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """Probability of the positive class, and whether it is the label."""
    places = [task.by_id[row.item].options.index(task.positive) for row in rows]
    scores = [row.probabilities[place] for row, place in zip(rows, places, strict=True)]
    labels = [label == place for label, place in zip(_labels(rows, task), places, strict=True)]
    return np.array(scores), np.array(labels)


def metrics(
    rows: Sequence[Prediction],
    task: Task,
    reference_recall: float | None,
    base_rates: Mapping[tuple[int, str], float] | None = None,
) -> dict[str, float | None]:
    """Every metric but the primary one; None where the labels do not define it.

    Args:
        rows: Predictions of one method.
        task: With the gold.
        reference_recall: Recall of few-shot prompting, at which the false positive rate of this
            method is told, at the threshold on these same labels that reaches it.
        base_rates: (draw, perspective) -> share of positive answers in the feedback. A method that
            ranks well but is unsure of everything says No to all items; ``macro_f1_at_base_rate``
            asks instead that each perspective's highest scores are positive, as many as that share.
    """
    scores, positive = scores_and_labels(rows, task)
    labels, predicted = _labels(rows, task), [row.probabilities for row in rows]
    values: dict[str, float | None] = {
        "accuracy": float(np.mean(classification.accuracy(predicted, labels))),
        "macro_f1": _defined(classification.binary_macro_f1, scores, positive),
        "positive_f1": _defined(classification.positive_f1, scores, positive),
        "precision": _defined(classification.precision, scores, positive),
        "recall": _defined(classification.recall, scores, positive),
        "false_positive_rate": _defined(classification.false_positive_rate, scores, positive),
        "ece": expected_calibration_error(predicted, labels),
        "brier": float(np.mean(brier(predicted, labels))),
    }
    for recall in _RECALLS:
        values[f"false_positive_rate_at_recall_{recall}"] = _defined(
            classification.false_positive_rate_at_recall, scores, positive, recall
        )
    if base_rates:
        groups = [(row.draw, row.perspective) for row in rows]
        highest = flagged_at_base_rate(groups, scores, base_rates)
        values["macro_f1_at_base_rate"] = _defined(
            classification.binary_macro_f1, highest.astype(float), positive
        )
    if reference_recall:
        values["few_shot_recall"] = reference_recall
        values["false_positive_rate_at_few_shot_recall"] = _defined(
            classification.false_positive_rate_at_recall, scores, positive, reference_recall
        )
    return values


def flagged_at_base_rate(
    groups: Sequence[tuple[int, str]],
    scores: Float[np.ndarray, " rows"],
    base_rates: Mapping[tuple[int, str], float],
) -> Bool[np.ndarray, " rows"]:
    """The highest scores of every group, as large a share of it as its base rate.

    A group's rounded number is never exceeded: where scores tie at the border, none of them counts.

    Args:
        groups: Draw and perspective of each row.
        scores: Probability of the positive class.
        base_rates: Share of positive answers in the feedback of each group, 0 to 1.
    """
    flagged = np.zeros(len(scores), dtype=bool)
    for group, rate in base_rates.items():
        members = np.array([i for i, other in enumerate(groups) if other == group], dtype=int)
        n = round(rate * len(members))
        ranked = np.sort(scores[members])[::-1]
        if 0 < n < len(members):
            flagged[members] = scores[members] > ranked[n]
        elif n:
            flagged[members] = True
    return flagged


def functionality_rows(
    predictions: Mapping[str, Sequence[Prediction]], methods: Mapping[str, Method], task: Task
) -> list[dict[str, Any]]:
    """HateCheck's accuracy for each kind of test case, one row per method and kind."""
    rows: list[dict[str, Any]] = []
    for id_, of_method in predictions.items():
        kinds = [task.by_id[row.item].topic for row in of_method]
        scores, positive = scores_and_labels(of_method, task)
        accuracies = classification.accuracy_by_functionality(scores, positive, kinds)
        for kind in sorted(accuracies):
            row = {"method": id_, "title": methods[id_].title, "null": methods[id_].null}
            counted = {"n_predictions": kinds.count(kind), "accuracy": accuracies[kind]}
            rows.append(row | {"functionality": kind} | counted)
    return rows


def _labels(rows: Sequence[Prediction], task: Task) -> list[int]:
    return [
        label_of(item.distributions[row.perspective], item.options.index(task.positive))
        for row in rows
        for item in [task.by_id[row.item]]
    ]


def _defined(metric: Callable[..., float], *arguments: Any) -> float | None:
    try:
        return metric(*arguments)
    except InputError:
        return None
