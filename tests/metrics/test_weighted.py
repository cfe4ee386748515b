"""What is computed for all draws at once is what its namesake gives for the rows of each draw."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from saepd.metrics import weighted
from saepd.metrics.calibration import confidence_bins, expected_calibration_error
from saepd.metrics.intervals import draw_weights, interval

RNG = np.random.default_rng(3)
QUESTIONS = [f"q{i % 9}" for i in range(30)]
SCORES = np.round(RNG.random(30), 1)
POSITIVE = RNG.random(30) < 0.4
GROUPS = ["a", "b", "c"] * 10
WEIGHTS = draw_weights(QUESTIONS, 5, 50)


def row_by_row(score):
    """The score of each draw, of rows that are there as often as the draw says."""
    return [score(np.repeat(np.arange(30), counts.astype(int))) for counts in WEIGHTS]


def test_auroc():
    expected = row_by_row(lambda rows: roc_auc_score(POSITIVE[rows], SCORES[rows]))
    np.testing.assert_allclose(weighted.auroc(SCORES, POSITIVE, WEIGHTS), expected)


def test_auroc_within_groups():
    def within(rows):
        of_each = []
        for group in "abc":
            own = [i for i in rows if GROUPS[i] == group]
            if len(set(POSITIVE[own])) == 2:
                of_each.append(roc_auc_score(POSITIVE[own], SCORES[own]))
        return np.mean(of_each) if of_each else np.nan

    found = weighted.auroc_within(GROUPS, SCORES, POSITIVE, WEIGHTS)
    np.testing.assert_allclose(found, row_by_row(within))


def test_macro_f1():
    chosen = SCORES >= 0.5
    expected = row_by_row(lambda rows: f1_score(POSITIVE[rows], chosen[rows], average="macro"))
    np.testing.assert_allclose(weighted.macro_f1(chosen, POSITIVE, WEIGHTS), expected)


def test_calibration_error():
    predicted = np.stack([SCORES, 1 - SCORES], axis=1)
    labels = np.where(POSITIVE, 0, 1)
    confidence = predicted.max(1)
    ties = np.isclose(predicted, confidence[:, None])
    right = ties[np.arange(30), labels] / ties.sum(1)
    found = weighted.expected_calibration_error(
        confidence_bins(confidence, 5), right - confidence, WEIGHTS
    )
    expected = row_by_row(
        lambda rows: expected_calibration_error(predicted[rows], labels[rows], n_bins=5)
    )
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("everything", [True, False])
def test_one_class_has_no_score(everything):
    one = np.full(30, everything)
    for found in (
        weighted.auroc(SCORES, one, WEIGHTS),
        weighted.macro_f1(SCORES >= 0.5, one, WEIGHTS),
        weighted.auroc_within(GROUPS, SCORES, one, WEIGHTS),
    ):
        assert np.isnan(found).all()
        assert interval(found) is None
