import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.gate import Gate
from saepd.interchange.strength import at_every_token


def dense(seed, positions, coefficient, gate=None):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(
        f"d{seed}", SITE, AddVector(vector), positions, coefficient=coefficient, gate=gate
    )


def kl(model, directions):
    return float(kl_to_base(branch(model, NEUTRAL_PROMPTS, [directions])))


def test_each_perspective_is_carried_over_as_if_it_were_alone(llama):
    half = Gate(SITE, torch.zeros(D_MODEL), bias=0.5)
    groups = [
        [dense(0, "answer", 1.0, half)],
        [dense(1, "generated", 2.0)],
        [dense(2, "last(2)", 0.7), dense(3, "all", -0.5)],
    ]
    factors = []
    for group, (carried, refit) in zip(groups, at_every_token(llama, groups), strict=True):
        for before, after in zip(group, carried, strict=True):
            assert (after.positions, after.gate) == ("every", None)
            assert torch.equal(after.edit.vector, before.edit.vector)
            assert after.coefficient == pytest.approx(refit.factor * before.coefficient)
        [(_, alone)] = at_every_token(llama, [group])
        assert refit.factor == pytest.approx(alone.factor, rel=1e-3)
        assert refit.kl_before == pytest.approx(kl(llama, group), rel=1e-3, abs=1e-9)
        assert refit.kl_after == pytest.approx(kl(llama, carried), rel=1e-3)
        as_strong = [direction * (1 / refit.factor) for direction in carried]
        assert refit.kl_unchanged == pytest.approx(kl(llama, as_strong), rel=1e-3)
        factors.append(refit.factor)
    assert factors[1] == 1 and len({round(factor, 3) for factor in factors}) == 3
