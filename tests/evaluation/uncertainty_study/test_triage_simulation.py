import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uncertainty_study.triage_simulation import (
    error_curve,
    learning_curve,
    saved_over_random,
    simulation_rows,
)

losses = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5
)


def test_by_hand():
    # The second item is asked about first, then the third, then the first.
    found = error_curve(np.array([0.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.zeros(3))
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 1 / 3, 0])
    # A person who is wrong makes it worse.
    worse = error_curve(np.array([0.0, 1.0]), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(worse, [0, 0.5, 1])


@settings(max_examples=60)
@given(losses)
def test_ties_are_the_mean_over_all_their_orders(rows):
    uncertainty, unasked, asked = (np.array(column, dtype=float) for column in zip(*rows))  # noqa: B905
    curves = []
    for order in itertools.permutations(range(len(rows))):
        # A sort that keeps this order among equals.
        ranked = sorted(order, key=lambda i: -uncertainty[i])
        left = unasked.copy()
        curve = [left.mean()]
        for i in ranked:
            left[i] = asked[i]
            curve.append(left.mean())
        curves.append(curve)
    found = error_curve(uncertainty, unasked, asked)
    np.testing.assert_allclose(found, np.mean(curves, axis=0), atol=1e-9)
    assert found[0] == pytest.approx(unasked.mean()) and found[-1] == pytest.approx(asked.mean())


def test_what_an_order_saves_over_random():
    unasked, asked = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4)
    best = saved_over_random(np.array([1.0, 0, 0, 0]), unasked, asked)
    worst = saved_over_random(np.array([-1.0, 0, 0, 0]), unasked, asked)
    # Random: .25, .1875, .125, .0625, 0. Best: .25 and then nothing. Worst: .25 to the last.
    assert best == pytest.approx((0.625 - 0.25) / 5)
    assert worst == pytest.approx((0.625 - 1.0) / 5)
    assert saved_over_random(np.zeros(4), unasked, asked) == pytest.approx(0)


def test_rows_tell_the_error_left_and_whether_an_order_is_better_than_random():
    rng = np.random.default_rng(0)
    wrong = (rng.random(100) < 0.3).astype(float)
    orders = {"oracle": wrong, "random": np.zeros(100), "blind": rng.random(100)}
    orders["unread"] = np.where(wrong > 0, np.nan, 0.0)
    ids = [str(i) for i in range(100)]
    rows = {r["order"]: r for r in simulation_rows(orders, wrong, np.zeros(100), ids, 0)}
    assert rows["oracle"]["saved_over_random"][1] > 0
    assert rows["oracle"]["error_at_50%"] == 0
    assert rows["random"]["saved_over_random"] == [0, 0, 0]
    assert rows["random"]["error_at_50%"] == pytest.approx(wrong.mean() / 2)
    low, high = rows["blind"]["saved_over_random"][1:]
    assert low < 0 < high
    # What cannot be read is asked first.
    assert rows["unread"]["saved_over_random"] == rows["oracle"]["saved_over_random"]


def test_a_model_that_learns_from_answers():
    seen = []

    def losses_after(known):
        seen.append(list(known))
        return np.full(4, 1 / (1 + len(known)))

    found = learning_curve(np.array([3, 1, 0, 2]), np.zeros(4), losses_after, 2)
    assert seen == [[], [3, 1], [3, 1, 0, 2]]
    np.testing.assert_allclose(found, [1, 1 / 6, 0])
