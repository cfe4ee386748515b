import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from saepd.common.errors import InputError
from saepd.readout.calibrate import fit_temperature


def cross_entropy(scores, targets, temperature):
    rows = [
        -(y @ log_softmax(np.asarray(s, dtype=float) / temperature))
        for s, y in zip(scores, targets, strict=True)
    ]
    return np.mean(rows)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), spread=st.sampled_from([0.3, 3.0]))
def test_the_fitted_temperature_is_the_best_of_a_grid(seed, n, spread):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 5, n)
    scores = [torch.tensor(spread * rng.normal(size=k), dtype=torch.float32) for k in sizes]
    targets = [rng.dirichlet(np.ones(k)) for k in sizes]
    grid = np.geomspace(0.05, 200, 600)
    losses = [cross_entropy(scores, targets, t) for t in grid]
    fitted = fit_temperature(scores, targets)
    assert cross_entropy(scores, targets, fitted) <= min(losses) + 1e-6
    best = grid[np.argmin(losses)]
    # Where the minimum is flat, as at the hottest end, the place of it says nothing.
    assert fitted == pytest.approx(best, rel=0.02) or np.ptp(losses[-180:]) < 1e-3


def test_the_temperature_that_made_the_answers_is_found():
    rng = np.random.default_rng(0)
    scores = [torch.tensor(rng.normal(size=4) * 3, dtype=torch.float32) for _ in range(200)]
    targets = [np.exp(log_softmax(s.numpy() / 2.5)) for s in scores]
    assert fit_temperature(scores, targets) == pytest.approx(2.5, rel=1e-3)
    # Sure and always right: the colder the better. Sure and always wrong: the hotter the better.
    right = [np.eye(4)[int(s.argmax())] for s in scores]
    wrong = [np.eye(4)[int(s.argmin())] for s in scores]
    assert fit_temperature(scores, right) < 0.06
    assert fit_temperature(scores, wrong) > 190


@pytest.mark.parametrize(("n_scores", "n_targets"), [(0, 0), (2, 1), (0, 1)])
def test_rows_that_do_not_match_are_refused(n_scores, n_targets):
    with pytest.raises(InputError, match="as many target rows as score rows, at least one"):
        fit_temperature([torch.zeros(2)] * n_scores, [np.ones(2) / 2] * n_targets)
