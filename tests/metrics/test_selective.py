import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.metrics import selective


@st.composite
def scored(draw):
    """Uncertainties with ties, and errors of both kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(3, 30))
    values = draw(st.sampled_from([1, 3, 1000]))
    errors = np.append(rng.integers(2, size=n - 2), [0, 1])
    return rng.integers(values, size=n) / values, errors, rng


everything = settings(deadline=None, max_examples=50)


# --- the curve ---


def test_the_curve_by_hand():
    curve = selective.risk_coverage_curve([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    np.testing.assert_allclose(curve.threshold, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])


def test_ties_enter_the_curve_together():
    curve = selective.risk_coverage_curve([0.2, 0.1, 0.2, 0.2], [1, 0, 0, 0])
    np.testing.assert_allclose(curve.threshold, [0.1, 0.2])
    np.testing.assert_allclose(curve.coverage, [0.25, 1])
    np.testing.assert_allclose(curve.risk, [0, 0.25])


@everything
@given(scored())
def test_the_curve_is_the_mean_loss_below_each_threshold(data):
    uncertainty, errors, _ = data
    curve = selective.risk_coverage_curve(uncertainty, errors)
    for threshold, coverage, risk in zip(*curve, strict=True):
        answered = uncertainty <= threshold
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx(errors[answered].mean())
    assert curve.coverage[-1] == 1


# --- areas ---


def test_aurc_by_hand():
    # Risks 0, 0, 1/3, 2/4 in the best order, 1, 1, 2/3, 2/4 in the worst.
    errors = [0, 0, 1, 1]
    assert selective.aurc([1, 2, 3, 4], errors) == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert selective.aurc([4, 3, 2, 1], errors) == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


def test_a_score_that_says_nothing_has_the_error_rate():
    assert selective.aurc([7.0] * 5, [1, 0, 0, 0, 1]) == pytest.approx(0.4)


@everything
@given(scored())
def test_ties_are_averaged_over_their_orders(data):
    uncertainty, errors, rng = data
    broken = []
    for _ in range(300):
        order = np.lexsort((rng.random(len(errors)), uncertainty))
        broken.append((np.cumsum(errors[order]) / np.arange(1, len(errors) + 1)).mean())
    standard_error = np.std(broken) / np.sqrt(len(broken))
    assert abs(selective.aurc(uncertainty, errors) - np.mean(broken)) < 5 * standard_error + 1e-9


@everything
@given(scored())
def test_bounds_and_order(data):
    uncertainty, errors, rng = data
    order = rng.permutation(len(errors))
    best, worst = selective.aurc(errors, errors), selective.aurc(-errors, errors)
    for function in (selective.aurc, selective.coverage_at_risk):
        found = function(uncertainty, errors)
        assert 0 <= found <= 1
        assert function(uncertainty[order], errors[order]) == pytest.approx(found, abs=1e-12)
        # Only the ranking counts.
        assert function(np.exp(3 * uncertainty), errors) == pytest.approx(found, abs=1e-12)
    assert best - 1e-12 <= selective.aurc(uncertainty, errors) <= worst + 1e-12


def test_losses_need_not_be_errors():
    assert selective.aurc([1, 2], [0.5, 1.5]) == pytest.approx((0.5 + 1) / 2)


# --- coverage at a risk ---


def test_coverage_at_risk_by_hand():
    uncertainty = np.arange(40)
    errors = np.zeros(40)
    errors[[0, 30, 35]] = 1
    # One error in 20 is allowed from the 20th question on; at the 31st there are two in 31.
    assert selective.coverage_at_risk(uncertainty, errors) == 30 / 40
    assert selective.coverage_at_risk(uncertainty, errors, risk=0.1) == 1
    assert selective.coverage_at_risk(uncertainty, errors, risk=0.0) == 0


def test_a_risk_reached_exactly_is_kept_and_ties_are_not_split():
    errors = [0] * 19 + [1]
    assert selective.coverage_at_risk(np.arange(20), errors) == 1
    assert selective.coverage_at_risk([1.0] * 20, errors, risk=0.04) == 0
    assert selective.coverage_at_risk([1.0] * 18 + [2.0] * 2, errors, risk=0.04) == 0.9


# --- errors at the door ---


def test_what_is_no_score_and_no_loss():
    with pytest.raises(InputError, match=r"uncertainty\[1\] is nan"):
        selective.aurc([0.1, float("nan")], [0, 1])
    with pytest.raises(InputError, match=r"losses\[0\] is -1.0: a loss must not be negative"):
        selective.risk_coverage_curve([0.1, 0.2], [-1, 0])
    with pytest.raises(InputError, match="uncertainty has 2 entries and losses 1"):
        selective.aurc([0.1, 0.2], [1])
    with pytest.raises(InputError, match=r"the risk is -0\.1"):
        selective.coverage_at_risk([0.1], [1], risk=-0.1)
