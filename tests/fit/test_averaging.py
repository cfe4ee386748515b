import numpy as np
import pytest

from saepd.fit.averaging import average, likelihood_weights
from saepd.fit.penalised import Part, Row, logits


def test_fits_count_by_how_likely_they_make_answers_that_they_have_not_seen():
    held_out = [np.array([0.5, 0.7, 0.6]), np.array([0.6, 0.8, 0.9])]
    first, second = likelihood_weights(held_out)
    assert first + second == pytest.approx(1)
    # The products of the answers' probabilities, which differ by exp(0.5).
    assert first / second == pytest.approx(np.exp(0.5))


def test_the_more_answers_tell_fits_apart_the_less_the_worse_one_counts():
    few, many = (likelihood_weights([np.full(n, 0.6), np.full(n, 0.62)]) for n in (10, 100_000))
    assert 0.4 < few[1] < 0.5
    assert many[1] < 1e-8


def test_answers_that_no_fit_foretold_count_for_none():
    held_out = [np.array([0.5, np.nan]), np.array([0.5, np.nan])]
    assert likelihood_weights(held_out) == pytest.approx([0.5, 0.5])


def test_the_average_fit_foretells_the_average_of_the_log_odds():
    rng = np.random.default_rng(0)
    row = Row(
        "q", "left", rng.normal(size=(3, 4)), rng.normal(size=(3, 5)), np.zeros(3), np.eye(3)[0]
    )
    fits = [{"left": Part(rng.normal(size=4), rng.normal(size=5))} for _ in range(3)]
    weights = np.array([0.5, 0.3, 0.2])
    right = sum(w * logits(row, fit["left"]) for w, fit in zip(weights, fits, strict=True))
    assert logits(row, average(fits, weights)["left"]) == pytest.approx(right)
