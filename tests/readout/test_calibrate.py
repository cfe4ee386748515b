import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.readout.calibrate import fit_temperature, option_offsets
from saepd.readout.option_scores import OptionScores


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


def test_offsets_are_what_the_base_gives_options_that_several_questions_share():
    base = torch.tensor([[-1.0, -3.0], [-2.0, -5.0], [-4.0, -1.0]])
    scores = [
        OptionScores(torch.stack([row, torch.zeros(2)]), torch.ones(2), torch.ones(2).long())
        for row in base
    ]
    options = [("yes", "no"), ("yes", "no"), ("no", "yes")]
    items = [Item(id=str(i), prompt=f"{i}?", options=o) for i, o in enumerate(options)]
    [(shared, offset)] = option_offsets(scores, items).items()
    assert shared == ("yes", "no")
    torch.testing.assert_close(offset, torch.tensor([-1.5, -4.0]))
