import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from saepd.common.errors import InputError
from saepd.metrics import calibration, classification, distances

RAGGED = [[0.7, 0.3], [0.2, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]
RAGGED_GOLD = [[0.4, 0.6], [0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25]]


def examples(**strategies):
    """Hypothesis' given, without a deadline: the machine that runs this may be busy."""
    return lambda test: settings(deadline=None, max_examples=25)(given(**strategies)(test))


@st.composite
def distribution_pairs(draw):
    """Two ragged sets over the same questions, some options with probability 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(2, 6), min_size=1, max_size=5))

    def distribution(size):
        p = rng.dirichlet(np.full(size, 0.7)) * (rng.random(size) < 0.8)
        return p / p.sum() if p.sum() > 0 else np.eye(size)[0]

    return [distribution(k) for k in sizes], [distribution(k) for k in sizes]


# --- distances ---


@examples(pair=distribution_pairs(), base=st.sampled_from([2.0, math.e, 10.0]))
def test_js_distance_is_scipys(pair, base):
    expected = [jensenshannon(p, q, base) for p, q in zip(*pair, strict=True)]
    np.testing.assert_allclose(distances.js_distance(*pair, base=base), expected, atol=1e-7)
    np.testing.assert_allclose(
        distances.js_divergence(*pair, base=base), np.square(expected), atol=1e-9
    )


def test_js_is_in_bits_by_default():
    assert distances.js_divergence([[1, 0]], [[0, 1]]) == 1
    assert distances.js_distance([[1, 0]], [[0, 1]]) == 1
    assert distances.js_divergence([[1, 0]], [[0, 1]], base=math.e) == pytest.approx(math.log(2))


def test_js_of_nearly_equal_distributions_is_zero_and_not_nan():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=500)
    nudged = p * (1 + 1e-16 * rng.integers(-2, 3, size=p.shape))
    distance = distances.js_distance(p, nudged)
    assert np.isfinite(distance).all()
    assert distance.max() < 1e-7


def test_total_variation_by_hand():
    np.testing.assert_allclose(distances.total_variation(RAGGED, RAGGED_GOLD), [0.3, 0.7, 0.2])


@examples(pair=distribution_pairs())
def test_distances_are_symmetric_bounded_and_zero_on_themselves(pair):
    for distance in (
        distances.js_distance,
        distances.js_divergence,
        distances.total_variation,
        distances.wasserstein,
    ):
        forth, back = distance(*pair), distance(*pair[::-1])
        np.testing.assert_allclose(forth, back, atol=1e-12)
        assert ((forth >= 0) & (forth <= 1 + 1e-12)).all()
        np.testing.assert_allclose(distance(pair[0], pair[0]), 0, atol=1e-7)


@examples(pair=distribution_pairs())
def test_wasserstein_is_scipys(pair):
    expected = [
        wasserstein_distance(range(len(p)), range(len(p)), p, q) / (len(p) - 1)
        for p, q in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(distances.wasserstein(*pair), expected, atol=1e-12)


def test_wasserstein_counts_steps_along_the_scale():
    agree, lean, oppose = np.eye(3)
    assert distances.wasserstein([agree], [oppose]) == 1
    assert distances.wasserstein([agree], [lean]) == 0.5
    assert distances.total_variation([agree], [lean]) == distances.total_variation(
        [agree], [oppose]
    )


@pytest.mark.parametrize("factor", [0.9995, 1.0005])
def test_distributions_are_scaled_to_sum_to_one(factor):
    inexact = [factor * np.array(p) for p in RAGGED]
    for measure in (
        distances.js_distance,
        distances.total_variation,
        distances.wasserstein,
        distances.simbench_score,
    ):
        exact = measure(RAGGED, RAGGED_GOLD)
        np.testing.assert_allclose(measure(inexact, RAGGED_GOLD), exact, rtol=1e-12)
        np.testing.assert_allclose(measure(RAGGED_GOLD, inexact), measure(RAGGED_GOLD, RAGGED))
    for measure in (calibration.nll, calibration.brier):
        np.testing.assert_allclose(measure(inexact, [1, 1, 1]), measure(RAGGED, [1, 1, 1]))


# --- SimBench's score ---


def test_simbench_score_is_100_for_people_and_0_for_uniform():
    np.testing.assert_allclose(distances.simbench_score(RAGGED_GOLD, RAGGED_GOLD), 100)
    uniform = [np.full(len(p), 1 / len(p)) for p in RAGGED]
    assert distances.simbench_score(uniform, RAGGED_GOLD).mean() == pytest.approx(0)


def test_simbench_score_by_hand():
    # Total variation .3, .7, .2; of uniform .1, 2/3, 0, so .1 in dataset a and 1/3 in b.
    found = distances.simbench_score(RAGGED, RAGGED_GOLD, datasets=["a", "b", "b"])
    np.testing.assert_allclose(found, [100 * (1 - 3), 100 * (1 - 2.1), 100 * (1 - 0.6)])
    together = distances.simbench_score(RAGGED, RAGGED_GOLD)
    np.testing.assert_allclose(together, 100 * (1 - np.array([0.3, 0.7, 0.2]) / (0.1 + 2 / 3) * 3))


@examples(pair=distribution_pairs(), seed=st.integers(0, 99))
def test_simbench_score_is_at_most_100_and_questions_may_come_in_any_order(pair, seed):
    predicted, gold = pair
    gold = [np.eye(len(p))[0] for p in gold]
    names = [str(i % 2) for i in range(len(gold))]
    found = distances.simbench_score(predicted, gold, datasets=names)
    assert (found <= 100 + 1e-9).all()
    order = np.random.default_rng(seed).permutation(len(gold))
    shuffled = distances.simbench_score(
        [predicted[i] for i in order], [gold[i] for i in order], datasets=[names[i] for i in order]
    )
    np.testing.assert_allclose(shuffled, found[order])


def test_simbench_score_needs_a_dataset_that_uniform_does_not_solve():
    with pytest.raises(InputError, match="gold distribution of dataset 'even' is uniform"):
        distances.simbench_score([[0.9, 0.1]], [[0.5, 0.5]], datasets=["even"])
    with pytest.raises(InputError, match="every gold distribution is uniform"):
        distances.simbench_score([[0.9, 0.1]], [[0.5, 0.5]])
    with pytest.raises(InputError, match="1 questions but 2 dataset names"):
        distances.simbench_score([[0.9, 0.1]], [[0.4, 0.6]], datasets=["a", "b"])


# --- errors at the door ---


@pytest.mark.parametrize(
    "bad",
    [[0.5, 0.6], [0.3, 0.3], [1.2, -0.2], [math.nan, 1.0], [math.inf, 0.0], [1.0], [[0.5, 0.5]]],
    ids=["more", "less", "negative", "nan", "infinite", "one option", "two dimensions"],
)
def test_invalid_distributions_are_named_by_their_index(bad):
    good = [0.5, 0.5]
    for call in (
        lambda p: distances.js_distance(p, [good, good]),
        lambda p: distances.total_variation(p, [good, good]),
        lambda p: distances.wasserstein(p, [good, good]),
        lambda p: distances.simbench_score(p, [good, good]),
        lambda p: calibration.nll(p, [0, 0]),
        lambda p: calibration.brier(p, [0, 0]),
        lambda p: classification.accuracy(p, [0, 0]),
        lambda p: calibration.expected_calibration_error(p, [0, 0]),
    ):
        with pytest.raises(InputError, match=r"predicted\[1\]"):
            call([good, bad])
    with pytest.raises(InputError, match=r"gold\[1\]"):
        distances.js_divergence([good, good], [good, bad])


def test_sets_that_do_not_match():
    with pytest.raises(InputError, match="predicted has 3 questions and gold 2"):
        distances.js_distance(RAGGED, RAGGED_GOLD[:2])
    with pytest.raises(InputError, match=r"predicted\[0\] has 2 options and gold\[0\] 3"):
        distances.total_variation(RAGGED, RAGGED_GOLD[1:] + RAGGED_GOLD[:1])
    with pytest.raises(InputError, match="3 questions but there are 2 labels"):
        calibration.nll(RAGGED, [0, 1])
    with pytest.raises(InputError, match="empty"):
        classification.accuracy([], [])
    for label in (2, -1, 0.5):
        with pytest.raises(InputError, match=r"labels\[0\].*0 to 1"):
            calibration.brier([[0.5, 0.5]], [label])


def test_numbers_out_of_range():
    with pytest.raises(InputError, match="base"):
        distances.js_distance(RAGGED, RAGGED_GOLD, base=1.0)
    with pytest.raises(InputError, match="n_bins"):
        calibration.expected_calibration_error(RAGGED, [0, 0, 0], n_bins=0)
