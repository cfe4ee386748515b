import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import brier_score_loss, f1_score, log_loss

from saepd import metrics
from saepd.errors import InputError

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


def random_answers(seed, n=200, options=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(options), size=n), rng.integers(options, size=n)


# --- distances ---


@examples(pair=distribution_pairs(), base=st.sampled_from([2.0, math.e, 10.0]))
def test_js_distance_is_scipys(pair, base):
    expected = [jensenshannon(p, q, base) for p, q in zip(*pair, strict=True)]
    np.testing.assert_allclose(metrics.js_distance(*pair, base=base), expected, atol=1e-7)
    np.testing.assert_allclose(
        metrics.js_divergence(*pair, base=base), np.square(expected), atol=1e-9
    )


def test_js_is_in_bits_by_default():
    assert metrics.js_divergence([[1, 0]], [[0, 1]]) == 1
    assert metrics.js_divergence([[1, 0]], [[0, 1]], base=math.e) == pytest.approx(math.log(2))


def test_js_of_nearly_equal_distributions_is_zero_and_not_nan():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=500)
    nudged = p * (1 + 1e-16 * rng.integers(-2, 3, size=p.shape))
    distance = metrics.js_distance(p, nudged)
    assert np.isfinite(distance).all()
    assert distance.max() < 1e-7


def test_total_variation_by_hand():
    np.testing.assert_allclose(metrics.total_variation(RAGGED, RAGGED_GOLD), [0.3, 0.7, 0.2])


@examples(pair=distribution_pairs())
def test_distances_are_symmetric_bounded_and_zero_on_themselves(pair):
    for distance in (metrics.js_distance, metrics.js_divergence, metrics.total_variation):
        forth, back = distance(*pair), distance(*pair[::-1])
        np.testing.assert_allclose(forth, back, atol=1e-12)
        assert ((forth >= 0) & (forth <= 1 + 1e-12)).all()
        np.testing.assert_allclose(distance(pair[0], pair[0]), 0, atol=1e-7)


# --- scores ---


def test_nll_is_sklearns_log_loss():
    p, labels = random_answers(1)
    assert metrics.nll(p, labels).mean() == pytest.approx(log_loss(labels, p))


def test_nll_of_an_excluded_label_is_infinite():
    np.testing.assert_array_equal(metrics.nll([[0.0, 1.0], [0.0, 1.0]], [0, 1]), [math.inf, 0])


def test_brier_is_sklearns():
    p, labels = random_answers(2)
    expected = brier_score_loss(labels, p, labels=range(4), scale_by_half=False)
    assert metrics.brier(p, labels).mean() == pytest.approx(expected)


def test_brier_by_hand_on_ragged_questions():
    expected = [2 * 0.3**2, 0.2**2 + 0.5**2 + 0.7**2, 0.9**2 + 0.2**2 + 0.3**2 + 0.4**2]
    np.testing.assert_allclose(metrics.brier(RAGGED, [0, 2, 0]), expected)


def test_accuracy_counts_the_most_probable_option():
    np.testing.assert_array_equal(metrics.accuracy(RAGGED, [0, 2, 3]), [1, 0, 1])


def test_tied_options_share_the_credit():
    np.testing.assert_array_equal(metrics.accuracy([[0.5, 0.5]] * 2, [0, 1]), [0.5, 0.5])
    tied = metrics.accuracy([[0.4, 0.4, 0.2]] * 3, [0, 1, 2])
    np.testing.assert_array_equal(tied, [0.5, 0.5, 0])
    # A class has no half, so here the first of tied options is the prediction.
    assert metrics.macro_f1([[0.5, 0.5]] * 2, [0, 0]) == 1


def test_macro_f1_is_sklearns():
    p, labels = random_answers(3)
    assert metrics.macro_f1(p, labels) == f1_score(labels, p.argmax(1), average="macro")


def test_macro_f1_by_hand():
    # Class 0: precision 1/2, recall 1. Class 1: never predicted right. Class 2: only predicted.
    p = np.eye(3)[[0, 0, 2]]
    assert metrics.macro_f1(p, [0, 1, 1]) == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_calibration_error_by_hand():
    # Bins of width .25: (.5, .75] holds .7 right and .6 wrong, (.75, 1] holds .9 right.
    p = [[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]
    error = metrics.expected_calibration_error(p, [0, 1, 1], n_bins=4)
    assert error == pytest.approx((2 * abs(0.5 - 0.65) + abs(1 - 0.9)) / 3)


def test_calibration_bins_are_closed_above():
    # .5 and .4 share the bin (.25, .5] of four: their errors, +.5 and -.4, partly cancel.
    p = [[0.5, 0.25, 0.25], [0.4, 0.3, 0.3]]
    error = metrics.expected_calibration_error(p, [0, 1], n_bins=4)
    assert error == pytest.approx(abs(0.5 - 0.45))


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
    error = metrics.expected_calibration_error(p, labels, n_bins=n_bins)
    assert error == pytest.approx(expected)


# --- intervals ---


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        interval.low <= 1.0 <= interval.high
        for interval in (
            metrics.bootstrap_interval(rng.exponential(size=60), n=300, level=0.9, seed=i)
            for i in range(300)
        )
    ]
    assert 0.84 < np.mean(covered) < 0.94


def test_bootstrap_of_repeated_questions_resamples_whole_questions():
    rng = np.random.default_rng(1)
    covered, covered_if_independent = [], []
    for i in range(200):
        questions = np.repeat(np.arange(40), 10)
        values = np.repeat(rng.normal(size=40), 10) + 0.1 * rng.normal(size=400)
        whole = metrics.bootstrap_interval(values, questions=questions, n=200, seed=i)
        single = metrics.bootstrap_interval(values, n=200, seed=i)
        covered.append(whole.low <= 0 <= whole.high)
        covered_if_independent.append(single.low <= 0 <= single.high)
    assert np.mean(covered) > 0.88
    assert np.mean(covered_if_independent) < 0.6


def test_bootstrap_is_near_the_normal_interval():
    values = np.random.default_rng(2).normal(size=400)
    estimate, low, high = metrics.bootstrap_interval(values, n=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate == pytest.approx(values.mean())
    assert low == pytest.approx(estimate - half, abs=0.1 * half)
    assert high == pytest.approx(estimate + half, abs=0.1 * half)


def test_bootstrap_is_decided_by_its_seed_and_not_by_the_names_or_layout_of_questions():
    values = list(np.random.default_rng(4).normal(size=20))
    first = metrics.bootstrap_interval(values, seed=5)
    assert metrics.bootstrap_interval(values, seed=5) == first
    assert metrics.bootstrap_interval(values, seed=6) != first
    assert (
        metrics.bootstrap_interval(values, questions=list("tsrqponmlkjihgfedcba"), seed=5) == first
    )
    uneven = metrics.bootstrap_interval([0.0, 0.0, 3.0], questions=["a", "b", "a"], n=5000)
    # Drawing a twice, both, b twice: means 1.5, 1, 0.
    assert uneven == (1.0, 0.0, 1.5)


def test_paired_difference_is_the_bootstrap_of_the_difference():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=100)
    first, second = difficulty + 0.2, difficulty + 0.05 * rng.normal(size=100)
    interval = metrics.paired_difference(first, second, seed=1)
    assert interval == metrics.bootstrap_interval(first - second, seed=1)
    # Pairing removes the questions' difficulty, which would otherwise swamp the difference.
    assert 0.15 < interval.low < 0.2 < interval.high < 0.25
    apart = metrics.bootstrap_interval(first)
    assert apart.high - apart.low > 5 * (interval.high - interval.low)


# --- errors at the door ---


@pytest.mark.parametrize(
    "bad",
    [[0.5, 0.6], [1.2, -0.2], [math.nan, 1.0], [math.inf, 0.0], [1.0], [[0.5, 0.5]]],
    ids=["sum", "negative", "nan", "infinite", "one option", "two dimensions"],
)
def test_invalid_distributions_are_named_by_their_index(bad):
    good = [0.5, 0.5]
    for call in (
        lambda p: metrics.js_distance(p, [good, good]),
        lambda p: metrics.total_variation(p, [good, good]),
        lambda p: metrics.nll(p, [0, 0]),
        lambda p: metrics.brier(p, [0, 0]),
        lambda p: metrics.accuracy(p, [0, 0]),
        lambda p: metrics.macro_f1(p, [0, 0]),
        lambda p: metrics.expected_calibration_error(p, [0, 0]),
    ):
        with pytest.raises(InputError, match=r"predicted\[1\]"):
            call([good, bad])
    with pytest.raises(InputError, match=r"gold\[1\]"):
        metrics.js_divergence([good, good], [good, bad])


def test_sets_that_do_not_match():
    with pytest.raises(InputError, match="predicted has 3 questions and gold 2"):
        metrics.js_distance(RAGGED, RAGGED_GOLD[:2])
    with pytest.raises(InputError, match=r"predicted\[0\] has 2 options and gold\[0\] 3"):
        metrics.total_variation(RAGGED, RAGGED_GOLD[1:] + RAGGED_GOLD[:1])
    with pytest.raises(InputError, match="3 questions but there are 2 labels"):
        metrics.nll(RAGGED, [0, 1])
    with pytest.raises(InputError, match="empty"):
        metrics.accuracy([], [])
    for label in (2, -1, 0.5):
        with pytest.raises(InputError, match=r"labels\[0\].*0 to 1"):
            metrics.brier([[0.5, 0.5]], [label])


def test_numbers_out_of_range():
    with pytest.raises(InputError, match="base"):
        metrics.js_distance(RAGGED, RAGGED_GOLD, base=1.0)
    with pytest.raises(InputError, match="n_bins"):
        metrics.expected_calibration_error(RAGGED, [0, 0, 0], n_bins=0)
    with pytest.raises(InputError, match=r"values\[1\] is inf"):
        metrics.bootstrap_interval([0.0, math.inf, 1.0])
    with pytest.raises(InputError, match=r"values has shape \(2, 1\)"):
        metrics.bootstrap_interval([[0.0], [1.0]])
    with pytest.raises(InputError, match="two or more"):
        metrics.bootstrap_interval([0.0, 1.0], questions=["a", "a"])
    with pytest.raises(InputError, match="2 values but 1 question ids"):
        metrics.bootstrap_interval([0.0, 1.0], questions=["a"])
    for numbers in ({"n": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(InputError, match="level in"):
            metrics.bootstrap_interval([0.0, 1.0], **numbers)
    with pytest.raises(InputError, match="paired"):
        metrics.paired_difference([0.0, 1.0], [0.0])
