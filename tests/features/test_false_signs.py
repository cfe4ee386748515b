import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from saepd.features.false_signs import shrink


def drawn(seed, n=2000, share=0.1, spread=3.0):
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.5, 2.0, n)
    true = np.where(rng.random(n) < share, rng.normal(0, spread, n), 0.0)
    return true, true + errors * rng.normal(size=n), errors


@pytest.mark.parametrize("seed", range(4))
def test_rates_are_what_they_say(seed):
    true, estimates, errors = drawn(seed, share=0.3)
    found = shrink(estimates, errors)
    sure = found.false_sign_rate < 0.1
    assert sure.sum() > 50
    wrong = (np.sign(true) != np.sign(found.mean)) & sure
    # The mean rate of those that are called sure is the share of them that are wrong.
    said = found.false_sign_rate[sure].mean()
    assert wrong.sum() / sure.sum() == pytest.approx(said, abs=4 * (said / sure.sum()) ** 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_where_there_is_nothing_nothing_is_sure(seed):
    _, estimates, errors = drawn(seed, share=0.0)
    found = shrink(estimates, errors)
    assert found.false_sign_rate.min() > 0.05
    assert found.share_of_none > 0.9


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_neither_unit_nor_sign_matters(seed, unit):
    _, estimates, errors = drawn(seed, n=150)
    found = shrink(estimates, errors)
    assert np.all((found.false_sign_rate >= 0) & (found.false_sign_rate <= 1))
    assert np.all(np.abs(found.mean) <= np.abs(estimates) + 1e-12)
    assert np.all(found.mean * estimates >= 0)
    other = shrink(-unit * estimates, unit * errors)
    assert np.allclose(other.false_sign_rate, found.false_sign_rate, atol=1e-6)
    assert np.allclose(other.mean, -unit * found.mean, rtol=1e-4, atol=1e-6 * unit)


@given(st.integers(0, 10**6))
def test_of_equal_errors_the_larger_effect_is_surer(seed):
    _, estimates, _ = drawn(seed, n=200)
    rates = shrink(estimates, np.ones(200)).false_sign_rate[np.argsort(-np.abs(estimates))]
    assert np.all(np.diff(rates) >= -1e-9)


def test_a_posterior_by_integration():
    # With so many alike, the weights are known: half no effect, half a spread of about 4.
    rng = np.random.default_rng(0)
    true = np.where(np.arange(40_000) % 2 == 0, 0.0, rng.normal(0, 4, 40_000))
    estimates = true + rng.normal(size=40_000)
    estimates[0] = 2.0
    found = shrink(estimates, np.ones(40_000))

    def joint(b):
        return 0.5 * norm.pdf(b, scale=4) * norm.pdf(2.0 - b)

    above, below = quad(joint, 0, 30)[0], quad(joint, -30, 0)[0]
    none = 0.5 * norm.pdf(2.0)
    assert found.false_sign_rate[0] == pytest.approx(
        (below + none) / (above + below + none), abs=0.04
    )
