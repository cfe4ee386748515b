import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from saepd.common.errors import InputError
from saepd.readout.softmax import fit_softmax


def questions(n, seed=0, n_features=3):
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(int(rng.integers(2, 5)), n_features)) for _ in range(n)]
    targets = [rng.dirichlet(np.ones(len(f))) for f in features]
    return features, targets


def test_two_options_are_logistic_regression():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3))
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=200) > 0).astype(int)
    features = [np.stack([np.zeros(3), row]) for row in x]
    targets = [np.eye(2)[label] for label in y]
    found = fit_softmax(features, targets, np.full(3, 0.01))
    # Its C weighs the summed loss against half the squared norm.
    reference = LogisticRegression(C=1 / (0.01 * 200), fit_intercept=False, tol=1e-8).fit(x, y)
    assert np.allclose(found, reference.coef_[0], atol=1e-3)


def test_the_gradient_vanishes_at_the_solution_with_offsets_and_a_start():
    features, targets = questions(30)
    offsets = [np.arange(len(t)) / 2 for t in targets]
    start, penalty = np.array([1.0, 0.0, -1.0]), np.array([0.1, 0.2, 0.3])
    found = fit_softmax(features, targets, penalty, offsets=offsets, start=start)
    slope = penalty * (found - start)
    for f, t, o in zip(features, targets, offsets, strict=True):
        slope = slope + f.T @ (np.exp(log_softmax(f @ found + o)) - t) / len(features)
    assert np.abs(slope).max() < 1e-6


def test_people_who_answer_one_question_may_be_added_up():
    features, targets = questions(12)
    others = [np.random.default_rng(i).dirichlet(np.ones(len(t))) for i, t in enumerate(targets)]
    penalty = np.full(3, 0.01)
    apart = fit_softmax(features * 2, targets + others, penalty)
    together = fit_softmax(features, [t + o for t, o in zip(targets, others, strict=True)], penalty)
    assert np.allclose(apart, together, atol=1e-6)


def test_a_heavy_penalty_leaves_the_start():
    features, targets = questions(5)
    start = np.array([0.3, -0.2, 0.1])
    found = fit_softmax(features, targets, np.full(3, 1e6), start=start)
    assert np.allclose(found, start, atol=1e-4)


def test_what_moves_all_options_alike_moves_no_weight_however_far():
    features, targets = questions(12)
    penalty = np.full(3, 0.01)
    raised = [np.full(len(t), 2000.0 * (-1) ** i) for i, t in enumerate(targets)]
    found = fit_softmax(features, targets, penalty, offsets=raised)
    assert np.allclose(found, fit_softmax(features, targets, penalty), atol=1e-6)


def test_no_feedback_is_refused():
    with pytest.raises(InputError, match="no feedback"):
        fit_softmax([], [], np.ones(2))
