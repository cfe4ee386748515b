import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from saepd.fit.penalised import Part, Ridge, Row, losses
from saepd.fit.sparse import curvature, select_latents


def dictionary(n=40, width=12, seed=0):
    units = np.random.default_rng(seed).normal(size=(n, width))
    return units / np.linalg.norm(units, axis=1, keepdims=True)


def test_latents_that_make_up_all_vectors_are_found():
    units = dictionary()
    vectors = np.stack([3 * units[7] - units[21], units[7] + 2 * units[30]])
    assert set(select_latents(vectors, units, np.eye(12), 3)) == {7, 21, 30}
    # Nothing is missing any more, so no fourth one is taken.
    assert len(select_latents(vectors, units, np.eye(12), 9)) == 3


def test_the_metric_decides_which_missing_part_matters():
    units = np.eye(3)
    vectors = np.array([[1.0, 2.0, 3.0]])
    assert list(select_latents(vectors, units, np.eye(3), 2)) == [2, 1]
    assert list(select_latents(vectors, units, np.diag([100.0, 1.0, 1.0]), 2)) == [0, 2]


def test_nothing_is_chosen_for_nothing():
    assert len(select_latents(np.zeros((2, 12)), dictionary(), np.eye(12), 5)) == 0


@given(seed=st.integers(0, 1000), n=st.integers(1, 12))
def test_more_latents_leave_less_missing(seed, n):
    rng = np.random.default_rng(seed + 1)
    units, vectors = dictionary(seed=seed), rng.normal(size=(3, 12))
    root = rng.normal(size=(12, 12))
    metric = root @ root.T + np.eye(12)

    def missing(chosen):
        lower = np.linalg.cholesky(metric)
        basis = np.linalg.qr((units[chosen] @ lower).T)[0]
        wanted = vectors @ lower
        return np.square(wanted - wanted @ basis @ basis.T).sum()

    chosen = select_latents(vectors, units, metric, n)
    assert len(set(chosen)) == len(chosen) == n
    assert missing(chosen) <= missing(chosen[:-1]) + 1e-9


def test_curvature_is_how_the_loss_grows():
    rng = np.random.default_rng(0)
    readout = np.zeros((3, 1))
    at = Part(np.zeros(1), rng.normal(size=4))
    rows = []
    for number in range(5):
        effects = rng.normal(size=(3, 4))
        target = softmax(effects @ at.values)
        rows.append(Row(f"q{number}", "a", readout, effects, np.zeros(3), target))
    metric = curvature(rows, {"a": at}, Ridge(0.0, None), 1.0)
    step = 1e-3 * rng.normal(size=4)

    def loss(values):
        return losses(rows, {"a": Part(at.readout, values)}).mean()

    grown = loss(at.values + step) + loss(at.values - step) - 2 * loss(at.values)
    assert grown == pytest.approx(step @ metric @ step, rel=1e-3)
