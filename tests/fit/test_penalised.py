from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.special import softmax

from saepd.fit.penalised import (
    Part,
    Ridge,
    Row,
    effect_size,
    fit_both,
    fit_own,
    fit_readouts,
    fit_shared,
    in_units,
    losses,
    penalty_of,
    written,
)

RIDGE = Ridge(shared=0.01, own=0.05, biases=0.02, own_readout=0.1)


def answers(n, n_units=5, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        effects = rng.normal(size=(3, n_units))
        readout = np.hstack([rng.normal(size=(3, 1)), np.eye(3), np.eye(3)[:, -1:]])
        offset = rng.normal(size=3) / 4
        for name, sign in (("a", 1.0), ("b", -1.0)):
            scores = readout[:, 0] + offset + 2 * effects[:, 1] + sign * effects[:, 2]
            target = softmax(scores)
            rows.append(Row(f"q{number}", name, readout, effects, offset, target))
    return rows


@pytest.mark.parametrize("n_units", [5, 40])
def test_the_shared_part_is_where_the_penalised_loss_is_flat(n_units):
    rows, size = answers(12, n_units), 1.5
    found = fit_shared(rows, RIDGE, size)
    slope = np.concatenate(
        [[0.0], RIDGE.biases * found.readout[1:], RIDGE.shared * size**2 * found.values]
    )
    for row in rows:
        p = softmax(row.readout @ found.readout + row.effects @ found.values + row.offset)
        away = np.hstack([row.readout, row.effects]).T @ (p - row.target)
        slope += away / len(rows)
    # Fewer answers than units are fitted within their span, and the slope is zero outside it too.
    np.testing.assert_allclose(slope, 0, atol=1e-5)


@pytest.mark.parametrize("n_units", [5, 40])
def test_each_own_part_is_where_its_loss_is_flat_with_a_ridge_around_the_shared_part(n_units):
    rows, size = answers(12, n_units), 1.5
    shared = fit_shared(rows, RIDGE, size)
    for name, own in fit_own(rows, RIDGE, size, shared).items():
        slope = np.concatenate(
            [
                RIDGE.own_readout * (own.readout - shared.readout),
                RIDGE.own * size**2 * (own.values - shared.values),
            ]
        )
        for row in rows[("a", "b").index(name) :: 2]:
            p = softmax(row.readout @ own.readout + row.effects @ own.values + row.offset)
            slope += np.hstack([row.readout, row.effects]).T @ (p - row.target) / 12
        np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_own_parts_leave_the_shared_one_as_far_as_their_ridge_lets_them():
    rows = answers(40)
    size = effect_size(rows)
    shared = fit_shared(rows, RIDGE, size)
    own = fit_own(rows, RIDGE, size, shared)
    assert own["a"].values[2] > 0.3 > -0.3 > own["b"].values[2]
    assert own["a"].values[1] == pytest.approx(shared.values[1], abs=0.5)
    tight = fit_own(rows, Ridge(0.01, 1e6, 0.02, 0.1), size, shared)
    np.testing.assert_allclose(tight["a"].values, shared.values, atol=1e-4)
    same = fit_own(rows, Ridge(0.01, None, 0.02, 0.1), size, shared)
    assert same["a"].values is shared.values
    np.testing.assert_allclose(same["a"].readout, tight["a"].readout, atol=1e-3)


def test_axes_and_their_rotations_are_fitted_alike():
    rows = answers(20)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    straight, turned = (
        fit_shared(rows, RIDGE, 1.0),
        fit_shared(in_units(rows, rotation), RIDGE, 1.0),
    )
    np.testing.assert_allclose(turned.values @ rotation, straight.values, atol=1e-4)


def test_what_is_written_moves_into_the_offset():
    rows = answers(20)
    values = np.random.default_rng(2).normal(size=5)
    fixed = written(rows, values)
    assert fixed[0].effects.shape == (3, 0)
    parts = fit_readouts(fixed, RIDGE)
    with_values = {n: Part(p.readout, values) for n, p in parts.items()}
    np.testing.assert_allclose(losses(fixed, parts), losses(rows, with_values))


def test_answers_that_are_added_up_give_the_same_fit():
    rows = answers(10)
    apart = [
        Row(r.question, r.perspective, r.readout, r.effects.copy(), r.offset, r.target)
        for r in rows
    ]
    for name, part in fit_both(rows, RIDGE, 1.0).items():
        other = fit_both(apart, RIDGE, 1.0)[name]
        np.testing.assert_allclose(part.values, other.values, atol=1e-5)


def test_the_size_of_effects_is_what_all_candidates_do_whatever_their_signs():
    rows = answers(12, n_units=4)
    # Signs of every unit, in all combinations: on average only the squares are left.
    signs = np.array(list(product([-1.0, 1.0], repeat=4)))
    moves = np.stack([row.effects @ signs.T for row in rows])
    assert effect_size(rows) == pytest.approx(np.sqrt(np.square(moves).mean()))
    assert effect_size(written(rows)) == 1.0


def test_the_unit_of_effects_does_not_matter_where_their_size_is_known():
    rows = answers(20)
    halved = [replace(row, effects=row.effects / 2) for row in rows]
    for name, part in fit_both(rows, RIDGE, effect_size(rows)).items():
        other = fit_both(halved, RIDGE, effect_size(halved))[name]
        np.testing.assert_allclose(other.values, 2 * part.values, atol=1e-4)
        np.testing.assert_allclose(other.readout, part.readout, atol=1e-4)


def test_the_penalty_counts_in_units_of_the_effects():
    assert penalty_of(np.array([1.0, 2.0]), RIDGE, 2.0) == pytest.approx(0.01 * 4 * 5 / 2)
