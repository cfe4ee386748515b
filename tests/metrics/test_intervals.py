import math

import numpy as np
import pytest

from saepd.common.errors import InputError
from saepd.metrics.intervals import Interval, draw_weights, interval, resampled
from saepd.metrics.weighted import mean


def of_mean(values, questions=None, n=1000, seed=0, level=0.95):
    """The interval of a mean, each value a question of its own unless it is said."""
    ids = range(len(values)) if questions is None else questions
    return interval(mean(np.asarray(values, float), draw_weights(ids, seed, n)), level)


def test_it_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= 1.0 <= high
        for _, low, high in (
            of_mean(rng.exponential(size=60), n=300, level=0.9, seed=i) for i in range(300)
        )
    ]
    assert 0.84 < np.mean(covered) < 0.94


def test_rows_of_one_question_are_drawn_together():
    rng = np.random.default_rng(1)
    covered, covered_if_independent = [], []
    for i in range(200):
        questions = np.repeat(np.arange(40), 10).tolist()
        values = np.repeat(rng.normal(size=40), 10) + 0.1 * rng.normal(size=400)
        whole = of_mean(values, questions, n=200, seed=i)
        single = of_mean(values, n=200, seed=i)
        covered.append(whole.low <= 0 <= whole.high)
        covered_if_independent.append(single.low <= 0 <= single.high)
    assert np.mean(covered) > 0.88
    assert np.mean(covered_if_independent) < 0.6


def test_it_is_near_the_normal_interval():
    values = np.random.default_rng(2).normal(size=400)
    estimate, low, high = of_mean(values, n=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate == pytest.approx(values.mean())
    assert low == pytest.approx(estimate - half, abs=0.1 * half)
    assert high == pytest.approx(estimate + half, abs=0.1 * half)


def test_it_is_decided_by_the_seed_and_not_by_the_names_of_questions():
    values = np.random.default_rng(4).normal(size=20)
    first = of_mean(values, seed=5)
    assert of_mean(values, seed=5) == first
    assert of_mean(values, seed=6) != first
    assert of_mean(values, questions="tsrqponmlkjihgfedcba", seed=5) == first
    # Drawing a twice, both, b twice: means 1.5, 1, 0.
    assert of_mean([0.0, 0.0, 3.0], "aba", n=5000) == (1.0, 0.0, 1.5)


def test_differences_between_methods_are_paired():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=100)
    first, second = difficulty + 0.2, difficulty + 0.05 * rng.normal(size=100)
    weights = draw_weights(range(100), 1)
    found = interval(mean(first, weights) - mean(second, weights))
    # Pairing removes the questions' difficulty, which would otherwise swamp the difference.
    assert 0.15 < found.low < 0.2 < found.high < 0.25
    apart = interval(mean(first, weights))
    assert apart.high - apart.low > 5 * (found.high - found.low)


def test_a_score_that_takes_no_weights_is_computed_on_the_rows_of_each_draw():
    rng = np.random.default_rng(7)
    values, questions = rng.normal(size=60), rng.integers(20, size=60).tolist()
    weights = draw_weights(questions, 3, 200)
    np.testing.assert_allclose(resampled(np.mean, values, weights=weights), mean(values, weights))
    sizes = set()

    def rows_drawn(values):
        sizes.add(tuple(np.unique(values, return_counts=True)[1].tolist()))
        return float(len(values))

    resampled(rows_drawn, np.array([0, 0, 1]), weights=draw_weights("aab", 0, 50))
    # Both questions once, the first twice, the second twice: never half a question.
    assert sizes == {(2, 1), (4,), (2,)}


def test_draws_without_a_score_are_left_out_while_they_are_few():
    def largest(values):
        if not any(values):
            raise InputError("all are 0")
        return float(np.mean(values))

    def found(values):
        values = np.array(values)
        return interval(resampled(largest, values, weights=draw_weights(range(len(values)), 0)))

    # All five draws hit the two zeros with probability .4^5, one time in a hundred.
    assert found([1, 1, 1, 0, 0]).low > 0
    assert found([1, 0, 0, 0, 0]) is None
    assert found([0, 0]) is None


def test_one_question_has_an_estimate_and_no_interval():
    alone = draw_weights("aaa", 0)
    assert mean(np.array([1.0, 2, 6]), alone).tolist() == [3]
    assert interval(mean(np.ones(3), alone)) is None
    assert interval(np.array([0.5] * 21)) == Interval(0.5, 0.5, 0.5)
    assert interval(np.array([np.nan] + [0.5] * 20)) is None
