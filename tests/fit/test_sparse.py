import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from saepd.fit.penalised import Part, Ridge, Row, losses
from saepd.fit.sparse import Dictionary, curvature, in_latents


def dictionary(n=40, width=12, seed=0):
    units = np.random.default_rng(seed).normal(size=(n, width))
    return Dictionary((units / np.linalg.norm(units, axis=1, keepdims=True),))


def test_latents_that_make_up_a_vector_are_found_with_their_scales():
    found = dictionary()
    [units] = found.units
    vectors = np.stack([3 * units[7] - units[21], units[7] + 2 * units[30]])
    first, second = in_latents(vectors, found, np.eye(12), 2)
    assert dict(zip(first.ids, first.scales, strict=True)) == pytest.approx({7: 3, 21: -1})
    assert dict(zip(second.ids, second.scales, strict=True)) == pytest.approx({7: 1, 30: 2})
    # Nothing is missing any more, so no third one is taken.
    assert [len(own.ids) for own in in_latents(vectors, found, np.eye(12), 9)] == [2, 2]


def test_the_metric_decides_which_missing_part_matters():
    units, vectors = Dictionary((np.eye(3),)), np.array([[1.0, 2.0, 3.0]])
    assert list(in_latents(vectors, units, np.eye(3), 2)[0].ids) == [2, 1]
    assert list(in_latents(vectors, units, np.diag([100.0, 1.0, 1.0]), 2)[0].ids) == [0, 2]


def test_nothing_is_chosen_for_nothing():
    vectors = np.stack([np.zeros(12), np.ones(12)])
    nothing, something = in_latents(vectors, dictionary(), np.eye(12), 5)
    assert len(nothing.ids) == len(nothing.scales) == 0
    assert len(something.ids) == 5


@given(seed=st.integers(0, 1000), n=st.integers(1, 12))
def test_more_latents_leave_less_missing(seed, n):
    rng = np.random.default_rng(seed + 1)
    units, vectors = dictionary(seed=seed), rng.normal(size=(3, 12))
    root = rng.normal(size=(12, 12))
    metric = root @ root.T + np.eye(12)

    def missing(n_chosen):
        lower = np.linalg.cholesky(metric)
        found = in_latents(vectors, units, metric, n_chosen)
        assert all(len(set(own.ids)) == len(own.ids) == n_chosen for own in found)
        made = np.stack([own.scales @ units.rows(own.ids) for own in found])
        return np.square((vectors - made) @ lower).sum(1)

    assert (missing(n) <= missing(n - 1) + 1e-9).all()
    assert (missing(n) < np.square(vectors @ np.linalg.cholesky(metric)).sum(1)).all()


def test_latents_of_several_sites_are_those_of_one_dictionary_with_zeros():
    sites = dictionary(n=20, width=6).units[0], dictionary(n=15, width=6, seed=1).units[0]
    side_by_side = np.zeros((35, 12))
    side_by_side[:20, :6], side_by_side[20:, 6:] = sites
    rng = np.random.default_rng(0)
    vectors, root = rng.normal(size=(3, 12)), rng.normal(size=(12, 12))
    metric = root @ root.T + np.eye(12)
    several, one = Dictionary(sites), Dictionary((side_by_side,))
    assert (len(several), several.width) == (35, 12)
    for own, plain in zip(
        in_latents(vectors, several, metric, 5), in_latents(vectors, one, metric, 5), strict=True
    ):
        assert np.array_equal(own.ids, plain.ids)
        np.testing.assert_allclose(own.scales, plain.scales)
    here, within = several.at_site(np.array([3, 20, 34]), 1)
    assert here.tolist() == [False, True, True] and within.tolist() == [0, 14]


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
