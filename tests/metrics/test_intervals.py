import math

import numpy as np
import pytest

from saepd.common.errors import InputError
from saepd.metrics import intervals
from saepd.metrics.classification import macro_f1

# --- of a mean ---


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        interval.low <= 1.0 <= interval.high
        for interval in (
            intervals.bootstrap_interval(rng.exponential(size=60), n=300, level=0.9, seed=i)
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
        whole = intervals.bootstrap_interval(values, questions=questions, n=200, seed=i)
        single = intervals.bootstrap_interval(values, n=200, seed=i)
        covered.append(whole.low <= 0 <= whole.high)
        covered_if_independent.append(single.low <= 0 <= single.high)
    assert np.mean(covered) > 0.88
    assert np.mean(covered_if_independent) < 0.6


def test_bootstrap_is_near_the_normal_interval():
    values = np.random.default_rng(2).normal(size=400)
    estimate, low, high = intervals.bootstrap_interval(values, n=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate == pytest.approx(values.mean())
    assert low == pytest.approx(estimate - half, abs=0.1 * half)
    assert high == pytest.approx(estimate + half, abs=0.1 * half)


def test_bootstrap_is_decided_by_its_seed_and_not_by_the_names_or_layout_of_questions():
    values = list(np.random.default_rng(4).normal(size=20))
    first = intervals.bootstrap_interval(values, seed=5)
    assert intervals.bootstrap_interval(values, seed=5) == first
    assert intervals.bootstrap_interval(values, seed=6) != first
    assert (
        intervals.bootstrap_interval(values, questions=list("tsrqponmlkjihgfedcba"), seed=5)
        == first
    )
    uneven = intervals.bootstrap_interval([0.0, 0.0, 3.0], questions=["a", "b", "a"], n=5000)
    # Drawing a twice, both, b twice: means 1.5, 1, 0.
    assert uneven == (1.0, 0.0, 1.5)


def test_paired_difference_is_the_bootstrap_of_the_difference():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=100)
    first, second = difficulty + 0.2, difficulty + 0.05 * rng.normal(size=100)
    interval = intervals.paired_difference(first, second, seed=1)
    assert interval == intervals.bootstrap_interval(first - second, seed=1)
    # Pairing removes the questions' difficulty, which would otherwise swamp the difference.
    assert 0.15 < interval.low < 0.2 < interval.high < 0.25
    apart = intervals.bootstrap_interval(first)
    assert apart.high - apart.low > 5 * (interval.high - interval.low)


# --- of what only a set has ---


def test_the_bootstrap_of_a_mean_is_the_one_of_its_values():
    rng = np.random.default_rng(7)
    values, questions = rng.normal(size=60), rng.integers(20, size=60).tolist()
    for ids in (None, questions):
        expected = intervals.bootstrap_interval(values, questions=ids, n=200, seed=3)
        found = intervals.bootstrap_metric(np.mean, values, questions=ids, n=200, seed=3)
        np.testing.assert_allclose(found, expected)


def test_a_score_of_a_set_takes_ragged_distributions_and_draws_whole_questions():
    ragged = [[0.7, 0.3], [0.2, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]
    found = intervals.bootstrap_metric(macro_f1, ragged, [0, 1, 3], questions=["a", "a", "b"], n=50)
    assert found == (1, 1, 1)
    sizes = set()

    def rows_drawn(values):
        sizes.add(tuple(np.unique(values, return_counts=True)[1].tolist()))
        return float(len(values))

    intervals.bootstrap_metric(rows_drawn, [0, 0, 1], questions=["a", "a", "b"], n=50)
    # Both questions once, the first twice, the second twice: never half a question.
    assert sizes == {(2, 1), (4,), (2,)}


def test_the_paired_difference_of_a_score_draws_the_same_questions_for_both():
    rng = np.random.default_rng(8)
    values, other = rng.normal(size=80), rng.normal(size=80)
    found = intervals.paired_metric_difference(np.mean, [values], [other], n=200, seed=2)
    expected = intervals.paired_difference(values, other, n=200, seed=2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    same = intervals.paired_metric_difference(np.median, [values], [values + 1], n=50)
    np.testing.assert_allclose(same, -1)


def test_draws_without_a_score_are_left_out_while_they_are_few():
    def largest(values):
        if not any(values):
            raise InputError("all are 0")
        return float(np.mean(values))

    ones = [1, 1, 1, 0, 0]
    # All five draws hit the two zeros with probability .4^5, one time in a hundred.
    assert intervals.bootstrap_metric(largest, ones, n=500).low > 0
    with pytest.raises(InputError, match=r"% of the draws have no score \(all are 0\)"):
        intervals.bootstrap_metric(largest, [1, 0, 0, 0, 0], n=500)
    with pytest.raises(InputError, match=r"^all are 0"):
        intervals.bootstrap_metric(largest, [0, 0], n=500)


def test_columns_that_do_not_match():
    with pytest.raises(InputError, match=r"\[2, 1\] rows"):
        intervals.bootstrap_metric(np.mean, [1, 2], [1])
    with pytest.raises(InputError, match="give columns"):
        intervals.bootstrap_metric(np.mean)
    with pytest.raises(InputError, match="2 rows but 1 question ids"):
        intervals.bootstrap_metric(np.mean, [1, 2], questions=["a"])
    with pytest.raises(InputError, match="two or more"):
        intervals.bootstrap_metric(np.mean, [1.0])


# --- errors at the door ---


def test_numbers_out_of_range():
    with pytest.raises(InputError, match=r"values\[1\] is inf"):
        intervals.bootstrap_interval([0.0, math.inf, 1.0])
    with pytest.raises(InputError, match=r"values has shape \(2, 1\)"):
        intervals.bootstrap_interval([[0.0], [1.0]])
    with pytest.raises(InputError, match="two or more"):
        intervals.bootstrap_interval([0.0, 1.0], questions=["a", "a"])
    with pytest.raises(InputError, match="2 values but 1 question ids"):
        intervals.bootstrap_interval([0.0, 1.0], questions=["a"])
    for numbers in ({"n": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(InputError, match="level in"):
            intervals.bootstrap_interval([0.0, 1.0], **numbers)
    with pytest.raises(InputError, match="paired"):
        intervals.paired_difference([0.0, 1.0], [0.0])
