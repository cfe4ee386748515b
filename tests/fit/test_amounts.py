import numpy as np
import pytest
from tiny import SITE

from saepd.feedback.schema import Feedback
from saepd.fit.amounts import slope
from saepd.fit.asked import ask
from saepd.fit.gates import contrast
from saepd.fit.gauss_newton import around_nothing
from saepd.models.wording import ReadoutConfig


def report(*_):
    pass


@pytest.mark.parametrize("amount", [-0.5, 0.001, 0.25, 0.5])
def test_what_ran_tells_what_a_little_more_would_do(llama, amount):
    rows = [
        Feedback(
            id=thing, item=thing, perspective="left", prompt=f"{thing} is good.",
            options=("no", "yes"), answer="yes",
        )
        for thing in ("tea", "rain", "soup", "bread")
    ]  # fmt: skip
    asked = ask(llama, rows, [SITE], ReadoutConfig(), "answer", report)
    around = around_nothing(asked, report)
    vector = contrast(around, asked)
    there = asked.effects(asked.everywhere(amount * vector))
    slopes = [slope(around[p].gradients @ vector, amount, own.moved) for p, own in there.items()]
    right = [own.gradients @ vector for own in there.values()]
    np.testing.assert_allclose(slopes, right, atol=0.1 * np.abs(right).max())


def test_the_slope_of_a_parabola_is_found_wherever_it_is_looked_at():
    for amount in (-2.0, 0.5, 3.0):
        moved = 3 * amount + 2 * amount**2 * np.ones(1)
        assert slope(np.array([3.0]), amount, moved) == pytest.approx(3 + 4 * amount)
    assert slope(np.array([3.0]), 0.0, np.array([1e-5])) == 3.0
