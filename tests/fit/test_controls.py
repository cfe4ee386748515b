from collections import Counter

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.features.encode import Pairs
from saepd.feedback.schema import Feedback
from saepd.fit.controls import (
    dense_difference,
    random_latents,
    reconstruction_only,
    shuffled_labels,
)

N_ROWS, D_SAE = 30, 48
NAMES = ["ours"] * 10 + ["theirs"] * 15 + ["others"] * 5


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(D_SAE, generator=generator)
    density[::3] = 0
    return Pairs(
        rows=[
            Feedback(id=f"r{i}", perspective=name, prompt="So?", options=("Yes", "No"), answer="No")
            for i, name in enumerate(NAMES)
        ],
        positive_texts=[f"text {i}" for i in range(N_ROWS)],
        latents=torch.randn(N_ROWS, D_SAE, generator=generator),
        residuals=torch.randn(N_ROWS, D_MODEL, generator=generator),
        density=density,
        special_density=torch.zeros(D_SAE),
        positive_latents=torch.rand(N_ROWS, D_SAE, generator=generator),
    )


@pytest.fixture
def direction(random_sae):
    return Direction(
        "theirs",
        SITE,
        EditLatents(random_sae(), [1, 4, 10, 40], [1.0, -2.0, 3.0, 0.5]),
        positions="last(2)",
        coefficient=0.5,
        lineage={"model": "llama"},
    )


# --- random latents ---


def test_random_latents_are_others_that_fire(direction, pairs):
    drawn = Counter()
    for seed in range(40):
        other = random_latents(direction, pairs, seed)
        drawn.update(other.edit.latents.tolist())
        assert len(set(other.edit.latents.tolist())) == 4
        assert sorted(other.edit.values.tolist()) == sorted(direction.edit.values.tolist())
        assert (other.perspective, other.positions, other.edit.mode) == ("theirs", "last(2)", "add")
        assert other.lineage == direction.lineage
    pool = set(range(D_SAE)) - set(range(0, D_SAE, 3)) - set(direction.edit.latents.tolist())
    assert drawn.keys() == pool


@pytest.mark.parametrize("coefficient", [0.5, -2.0])
def test_random_latents_are_as_strong(direction, pairs, coefficient):
    direction = direction.scaled(coefficient)
    for seed in range(10):
        other = random_latents(direction, pairs, seed)
        torch.testing.assert_close(other.constant.norm(), direction.constant.norm())
        assert other.coefficient * coefficient > 0
        assert other.coefficient != coefficient
        assert (other.constant - direction.constant).norm() > 0.1


def test_random_latents_of_a_direction_that_is_off_are_off(direction, pairs):
    assert random_latents(direction.scaled(0.0), pairs, 0).constant.norm() == 0


def test_random_latents_are_those_of_the_seed(direction, pairs):
    one, again, other = (random_latents(direction, pairs, seed) for seed in (3, 3, 4))
    assert torch.equal(one.edit.latents, again.edit.latents)
    assert torch.equal(one.edit.values, again.edit.values)
    assert not torch.equal(one.edit.latents, other.edit.latents)


@pytest.mark.parametrize("mode", ["scale", "clamp", "ablate"])
def test_random_latents_where_strength_depends_on_the_text(direction, pairs, mode, random_sae):
    values = None if mode == "ablate" else direction.edit.values
    direction = Direction(
        "p", SITE, EditLatents(random_sae(), direction.edit.latents, values, mode)
    )
    other = random_latents(direction, pairs, 0)
    assert other.edit.mode == mode
    assert other.coefficient == direction.coefficient
    assert not set(other.edit.latents.tolist()) & set(direction.edit.latents.tolist())


def test_random_latents_where_few_others_fire(direction, pairs):
    pairs.density[:] = 0
    pairs.density[[1, 20, 21]] = 0.1
    other = random_latents(direction, pairs, 0)
    assert sorted(other.edit.latents.tolist()) == [20, 21]
    assert set(other.edit.values.tolist()) < set(direction.edit.values.tolist())
    torch.testing.assert_close(other.constant.norm(), direction.constant.norm())
    # The screen itself is left as it was.
    assert pairs.density[1] > 0


def test_random_latents_are_those_of_latents_only(direction, pairs):
    dense = dense_difference(pairs, direction, "options")
    with pytest.raises(InputError, match="'theirs' is not made of latents, so none"):
        random_latents(dense, pairs, 0)


# --- the other controls ---


def test_dense_difference_is_the_mean_of_the_residuals(direction, pairs, llama):
    dense = dense_difference(pairs, direction, "options")
    expected = pairs.residuals[10:25].sum(0) / 15
    assert isinstance(dense.edit, AddVector)
    torch.testing.assert_close(dense.edit.vector, expected)
    assert (dense.perspective, dense.hook_name) == ("theirs", SITE)
    assert (dense.positions, dense.coefficient) == ("last(2)", 0.5)
    h = torch.zeros(3, D_MODEL)
    torch.testing.assert_close(dense.delta(h), 0.5 * expected.expand(3, -1))


def test_shuffled_labels_are_dealt_out_again(pairs):
    shuffled = shuffled_labels(pairs, seed=1)
    before, after = ([row.perspective for row in p.rows] for p in (pairs, shuffled))
    assert Counter(after) == Counter(before) == {"ours": 10, "theirs": 15, "others": 5}
    assert sum(a != b for a, b in zip(after, before, strict=True)) > 8
    assert before == NAMES
    # Only the labels move: what was said and what was encoded stay in their places.
    assert [row.id for row in shuffled.rows] == [row.id for row in pairs.rows]
    assert torch.equal(shuffled.latents, pairs.latents)
    assert torch.equal(shuffled.residuals, pairs.residuals)
    again, other = (
        [row.perspective for row in shuffled_labels(pairs, seed).rows] for seed in (1, 2)
    )
    assert again == after
    assert other != after


def test_reconstruction_only_loses_the_error_and_nothing_else(llama, random_sae, direction):
    sae = random_sae("topk")
    control = reconstruction_only(sae, direction)
    assert (control.perspective, control.positions) == ("theirs", "last(2)")
    tokens = torch.tensor([llama.tokenizer("Is it so?").input_ids])
    _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    h = cache[SITE].clone()
    with control.apply(llama):
        _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    assert torch.equal(cache[SITE][:, :-2], h[:, :-2])
    torch.testing.assert_close(cache[SITE][:, -2:], sae(h[:, -2:]), atol=1e-5, rtol=1e-5)
    assert (cache[SITE][:, -2:] - h[:, -2:]).norm() > 0.1
