"""How calibrated answers are before and after merging, and whether merging is what helps.

A method's overconfidence is its mean confidence less its accuracy: above 0 where it claims more
than it keeps. That a merge brings it down says nothing by itself, since averaging distributions
always lowers confidence; it has to do so against its nulls, and without paying in log-likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saepd.metrics import weighted
from saepd.metrics.calibration import brier, confidence_bins, nll
from saepd.metrics.classification import accuracy
from saepd.metrics.distributions import Distributions
from saepd.metrics.intervals import DrawWeights, PerDraw, draw_weights, interval

N_BINS = 10
# A merge is as calibrated as it is sharp: what its measures are, in the order of the table.
MEASURES = ("accuracy", "confidence", "overconfidence", "ece", "ece_equal_mass", "brier", "nll")
# Labels of probability 0 would make the mean infinite.
_LEAST = 1e-6


def calibration_rows(
    predicted: Mapping[str, Distributions],
    labels: Sequence[int],
    questions: Sequence[str],
    against: Mapping[str, Sequence[str]],
    seed: int,
) -> list[dict[str, Any]]:
    """One row per method: each measure with its 95% interval, and paired differences.

    Args:
        predicted: Method -> one distribution per question, the same questions for all.
        labels: Index of the right option per question.
        questions: Id of each question; equal ids are drawn together.
        against: Method -> methods it is compared with, by differences of overconfidence,
            equal-width ECE and NLL; below 0 is in its favour.
        seed: Of the bootstrap.

    Raises:
        InputError: a distribution or a label is invalid.
    """
    weights = draw_weights(questions, seed)
    by_method = {
        name: _measured(distributions, labels, weights) for name, distributions in predicted.items()
    }
    rows: list[dict[str, Any]] = []
    for name, of_each in by_method.items():
        row: dict[str, Any] = {"method": name, "n": len(labels)}
        row |= {measure: _rounded_interval(of_each[measure]) for measure in MEASURES}
        row["minus"] = {
            other: {
                measure: _rounded_interval(of_each[measure] - by_method[other][measure])
                for measure in ("overconfidence", "ece", "nll")
            }
            for other in against.get(name, ())
        }
        rows.append(row)
    return rows


def _measured(
    predicted: Distributions, labels: Sequence[int], weights: DrawWeights
) -> dict[str, PerDraw]:
    confidence = np.array([np.max(p) for p in predicted])
    right = accuracy(predicted, labels)
    gaps = right - confidence
    eces = [
        weighted.expected_calibration_error(
            confidence_bins(confidence, N_BINS, binning), gaps, weights
        )
        for binning in ("equal-width", "equal-mass")
    ]
    return {
        "accuracy": weighted.mean(right, weights),
        "confidence": weighted.mean(confidence, weights),
        "overconfidence": weighted.mean(-gaps, weights),
        "ece": eces[0],
        "ece_equal_mass": eces[1],
        "brier": weighted.mean(brier(predicted, labels), weights),
        "nll": weighted.mean(np.minimum(nll(predicted, labels), -np.log(_LEAST)), weights),
    }


def _rounded_interval(per_draw: PerDraw) -> list[float] | None:
    """Estimate, low and high; None where there is no interval."""
    around = interval(per_draw)
    return None if around is None else [round(float(value), 4) for value in around]
