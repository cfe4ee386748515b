import pytest
import torch
from directed import dense, sparse, tokens_of
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.gate import Gate


def test_a_sum_adds_what_both_add(llama, random_sae):
    one = dense("answer", seed=1, coefficient=2.0, lineage={"model": "llama", "note": "one"})
    other = sparse(random_sae(), positions="answer", lineage={"model": "llama", "note": "other"})
    tokens = tokens_of(llama)
    for made, parts in ((one + other, [one, other]), (one - other, [one, -other])):
        with apply_all(llama, parts):
            expected = llama(tokens)
        with made.apply(llama):
            torch.testing.assert_close(llama(tokens), expected, atol=1e-5, rtol=1e-5)
    total = one + other
    assert (total.perspective, total.hook_name, total.coefficient) == ("dense + sparse", SITE, 1.0)
    assert total.lineage == {"model": "llama"}
    assert isinstance(total.edit, AddVector)


def test_a_sum_acts_at_all_places_of_both(llama, random_sae):
    one = dense("answer", coefficient=2.0)
    tokens = tokens_of(llama)
    for other in (
        dense("all", seed=1),
        dense("answer", "blocks.2.hook_resid_post", seed=1, coefficient=0.5),
        sparse(random_sae(), "clamp", positions="answer"),
    ):
        for made, parts in (
            (one + other, [one, other]),
            (3 * (one - other), [3 * one, -3 * other]),
        ):
            assert len(made.parts) == 2
            with apply_all(llama, parts):
                expected = llama(tokens)
            with made.apply(llama):
                torch.testing.assert_close(llama(tokens), expected, atol=1e-5, rtol=1e-5)
    several = one + dense("answer", "blocks.2.hook_resid_post", seed=1)
    twice = several + several
    assert [part.hook_name for part in twice.parts] == [p.hook_name for p in several.parts]
    torch.testing.assert_close(twice.parts[1].constant, 2 * several.parts[1].constant)


def test_a_sum_that_makes_no_sense_is_refused():
    one = dense("answer", lineage={"model": "llama"})
    for other, match in [
        (dense("answer", lineage={"model": "gpt2"}), "for different models"),
        (Direction("w", SITE, AddVector([1.0, 2.0])), "for different models"),
        (dense("answer", gate=Gate(SITE, torch.ones(D_MODEL))), "a gate decides"),
    ]:
        with pytest.raises(InputError, match=match):
            one + other
    # What one block puts out is what the next is given.
    assert (one + dense("answer", "blocks.2.hook_resid_pre")).hook_name == SITE
