import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from saepd.common.errors import InputError
from saepd.metrics import calibration

RAGGED = [[0.7, 0.3], [0.2, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]


def examples(**strategies):
    """Hypothesis' given, without a deadline: the machine that runs this may be busy."""
    return lambda test: settings(deadline=None, max_examples=25)(given(**strategies)(test))


def random_answers(seed, n=200, options=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(options), size=n), rng.integers(options, size=n)


def test_nll_is_sklearns_log_loss():
    p, labels = random_answers(1)
    assert calibration.nll(p, labels).mean() == pytest.approx(log_loss(labels, p))


def test_nll_of_an_excluded_label_is_infinite():
    np.testing.assert_array_equal(calibration.nll([[0.0, 1.0], [0.0, 1.0]], [0, 1]), [math.inf, 0])


def test_brier_is_sklearns():
    p, labels = random_answers(2)
    expected = brier_score_loss(labels, p, labels=range(4), scale_by_half=False)
    assert calibration.brier(p, labels).mean() == pytest.approx(expected)


def test_brier_by_hand_on_ragged_questions():
    expected = [2 * 0.3**2, 0.2**2 + 0.5**2 + 0.7**2, 0.9**2 + 0.2**2 + 0.3**2 + 0.4**2]
    np.testing.assert_allclose(calibration.brier(RAGGED, [0, 2, 0]), expected)


def test_calibration_error_by_hand():
    # Bins of width .25: (.5, .75] holds .7 right and .6 wrong, (.75, 1] holds .9 right.
    p = [[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]
    error = calibration.expected_calibration_error(p, [0, 1, 1], n_bins=4)
    assert error == pytest.approx((2 * abs(0.5 - 0.65) + abs(1 - 0.9)) / 3)


def test_calibration_bins_are_closed_above():
    # .5 and .4 share the bin (.25, .5] of four: their errors, +.5 and -.4, partly cancel.
    p = [[0.5, 0.25, 0.25], [0.4, 0.3, 0.3]]
    error = calibration.expected_calibration_error(p, [0, 1], n_bins=4)
    assert error == pytest.approx(abs(0.5 - 0.45))


def test_a_confidence_that_is_one_but_for_rounding_is_in_the_last_bin():
    bins = calibration.confidence_bins(np.array([1 + 1e-7, 1.0, 0.95, 0.8]), 10)
    assert bins.tolist() == [9, 9, 9, 7]


@examples(seed=st.integers(0, 2**32 - 1), n_bins=st.integers(1, 20))
def test_calibration_error_by_loop(seed, n_bins):
    p, labels = random_answers(seed, n=60)
    confidence, right = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for b in range(n_bins):
        members = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if members.any():
            gap = abs(right[members].mean() - confidence[members].mean())
            expected += members.mean() * gap
    error = calibration.expected_calibration_error(p, labels, n_bins=n_bins)
    assert error == pytest.approx(expected)


# --- reliability diagrams ---


@examples(seed=st.integers(0, 2**32 - 1), binning=st.sampled_from(["equal-width", "equal-mass"]))
def test_reliability_is_sklearns(seed, binning):
    p, labels = random_answers(seed, n=100)
    found = calibration.reliability_diagram(p, labels, n_bins=10, binning=binning)
    right, sure = calibration_curve(
        p.argmax(1) == labels,
        p.max(1),
        n_bins=10,
        strategy={"equal-width": "uniform", "equal-mass": "quantile"}[binning],
    )
    np.testing.assert_allclose(found.accuracy, right)
    np.testing.assert_allclose(found.confidence, sure)


def test_reliability_by_hand():
    p = [[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]
    found = calibration.reliability_diagram(p, [0, 1, 1], n_bins=4)
    np.testing.assert_allclose(found.confidence, [0.65, 0.9])
    np.testing.assert_allclose(found.accuracy, [0.5, 1])
    np.testing.assert_array_equal(found.n_questions, [2, 1])


@examples(
    seed=st.integers(0, 2**32 - 1),
    n_bins=st.integers(1, 30),
    binning=st.sampled_from(["equal-width", "equal-mass"]),
)
def test_bins_hold_every_question_in_whatever_order(seed, n_bins, binning):
    rng = np.random.default_rng(seed)
    # Many ties: three options in tenths.
    p = np.array([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.4, 0.3, 0.3]])[rng.integers(3, size=40)]
    labels = rng.integers(3, size=40)
    found = calibration.reliability_diagram(p, labels, n_bins=n_bins, binning=binning)
    assert found.n_questions.sum() == 40
    assert found.n_questions.min() > 0
    assert (np.diff(found.confidence) > 0).all()
    order = rng.permutation(40)
    again = calibration.reliability_diagram(p[order], labels[order], n_bins=n_bins, binning=binning)
    for a, b in zip(found, again, strict=True):
        np.testing.assert_allclose(a, b)
    error = calibration.expected_calibration_error(p, labels, n_bins=n_bins, binning=binning)
    assert 0 <= error <= 1


def test_equal_mass_bins_hold_as_many_questions_each():
    p, labels = random_answers(9, n=103)
    found = calibration.reliability_diagram(p, labels, n_bins=10, binning="equal-mass")
    assert set(found.n_questions.tolist()) == {10, 11}
    tied = calibration.reliability_diagram([[0.9, 0.1]] * 5, [0, 0, 0, 1, 1], binning="equal-mass")
    np.testing.assert_allclose(tied.accuracy, [0.6])


def test_equal_mass_error_by_hand():
    p = [[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]]
    error = calibration.expected_calibration_error(p, [0, 1, 0, 0], n_bins=2, binning="equal-mass")
    assert error == pytest.approx((abs(0.5 - 0.65) + abs(1 - 0.85)) / 2)


def test_numbers_out_of_range():
    with pytest.raises(InputError, match="n_bins"):
        calibration.reliability_diagram(RAGGED, [0, 0, 0], n_bins=0)
    with pytest.raises(InputError, match="equal-width, equal-mass"):
        calibration.reliability_diagram(RAGGED, [0, 0, 0], binning="quantile")
    with pytest.raises(InputError, match=r"labels\[0\]"):
        calibration.reliability_diagram(RAGGED, [2, 0, 0])
