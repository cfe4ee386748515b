from types import SimpleNamespace

import numpy as np

from saepd.fit.gains import first_as_good, gains, is_gain
from saepd.fit.penalised import Ridge

N = 200
ASKED = SimpleNamespace(
    answers=[SimpleNamespace(question=f"q{i}", perspective="ab"[i % 2]) for i in range(N)],
    wordings={f"q{i}": f"q{i}" for i in range(N)},
)
SMALL, MIDDLE, LARGE = (Ridge(shared=one) for one in (0.1, 0.2, 0.3))


def losses(mean, spread, seed=0):
    """Losses of every answer with exactly this mean and standard deviation."""
    drawn = np.random.default_rng(seed).normal(size=N)
    return mean + spread * (drawn - drawn.mean()) / drawn.std()


def test_a_gain_is_the_mean_difference_and_its_standard_error():
    gained = gains(ASKED, losses(0.1, 2.0))
    assert np.isclose(gained[0], 0.1)
    assert np.isclose(gained[1:].std(), 2.0 / np.sqrt(N), rtol=0.1)
    own = losses(0.1, 2.0)
    own[1::2] = np.nan
    assert np.isclose(gains(ASKED, own)[0], own[::2].mean())
    assert np.isclose(gains(ASKED, losses(0.1, 2.0), "b")[0], losses(0.1, 2.0)[1::2].mean())


def test_a_gain_counts_above_its_standard_error_and_above_what_is_worth_it():
    error = 2.0 / np.sqrt(N)
    assert is_gain(gains(ASKED, losses(1.3 * error, 2.0)))
    assert not is_gain(gains(ASKED, losses(0.7 * error, 2.0)))
    assert not is_gain(gains(ASKED, losses(5e-4, 1e-6)))
    assert not is_gain(np.array([0.5]))


def test_the_first_penalty_is_taken_that_is_not_surely_worse_than_the_best():
    noise = losses(0.0, 2.0)
    error = 2.0 / np.sqrt(N)
    best = np.full(N, 1.0)
    level, worse = best + 0.7 * error + noise, best + 1.5 * error + noise
    assert first_as_good(ASKED, {SMALL: level, LARGE: best}) == SMALL
    assert first_as_good(ASKED, {SMALL: worse, MIDDLE: level, LARGE: best}) == MIDDLE
    assert first_as_good(ASKED, {LARGE: best, SMALL: level}) == LARGE


def test_what_is_as_good_as_the_best_must_be_a_gain_itself():
    error = 2.0 / np.sqrt(N)
    best = np.full(N, 1.0)
    level = best + 0.7 * error + losses(0.0, 2.0)
    found = {SMALL: level, LARGE: best}
    assert first_as_good(ASKED, found, level + 2 * error) == SMALL
    assert first_as_good(ASKED, found, best + 0.5 * error) == LARGE
    assert first_as_good(ASKED, found, best - 1.0) == LARGE
