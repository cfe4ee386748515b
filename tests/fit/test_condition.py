from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.gate import read_amounts
from saepd.fit.condition import learn_condition

RNG = np.random.default_rng(0)
LOUD = ["".join(RNG.choice(list("AEIOU"), 12)) for _ in range(12)]
QUIET = ["".join(RNG.choice(list("bcdfg"), 12)) for _ in range(15)]


@pytest.fixture(scope="module")
def condition(llama):
    return learn_condition(llama, SITE, LOUD[:8], QUIET[:11])


def test_it_opens_on_texts_of_its_kind_that_it_has_not_seen(llama, condition):
    assert condition.supported
    assert condition.auroc.estimate > 0.9
    assert condition.opens - condition.opens_wrongly > 0.6
    rows = [llama.tokenizer(text).input_ids for text in LOUD[8:] + QUIET[11:]]
    amounts = read_amounts(llama, rows, [condition.gate])[condition.gate]
    assert amounts.tolist() == [1.0] * 4 + [0.0] * 4


def test_a_direction_is_written_where_it_opens_and_nowhere_else(llama, condition):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    plain = Direction("d", "blocks.2.hook_resid_post", AddVector(3 * vector))
    gated = replace(plain, gate=condition.gate)
    base, always, where_open = branch(llama, [LOUD[-1], QUIET[-1]], [plain, gated]).unbind(1)
    assert (always - base).abs().amin(0).max() > 1e-2
    torch.testing.assert_close(where_open[0], always[0])
    torch.testing.assert_close(where_open[1], base[1])


def test_kinds_can_be_swapped_and_read_in_latents(llama, random_sae):
    sae = random_sae()
    opposite = learn_condition(llama, sae, QUIET, LOUD)
    assert opposite.gate.sae is sae
    assert opposite.auroc.estimate > 0.9
    assert opposite.opens > opposite.opens_wrongly
    assert "Tells the kinds apart: AUROC" in repr(opposite)


def test_a_text_that_is_there_twice_counts_once(llama, condition):
    twice = learn_condition(llama, SITE, 2 * LOUD[:8], QUIET[:11] + QUIET[:2])
    assert twice.auroc == condition.auroc
    torch.testing.assert_close(twice.gate.weights, condition.gate.weights)


def test_texts_that_do_not_differ_are_not_told_apart(llama):
    mixed = LOUD[:6] + QUIET[:6]
    condition = learn_condition(llama, SITE, mixed[::2], mixed[1::2])
    assert not condition.supported
    assert str(condition).startswith("Does not tell the kinds apart")


@pytest.mark.parametrize(
    ("steered", "others", "said"),
    [
        (LOUD[:4], QUIET, "at least 5 texts of each kind, and those to steer are 4"),
        (LOUD, "quiet", "the texts to leave alone are 'quiet': give a list"),
        (4 * LOUD[:3], QUIET, "those to steer are 3"),
        (LOUD, [*QUIET, LOUD[0]], "both to be steered and to be left alone"),
        (LOUD, [*QUIET, ""], "prompt"),
        ([*LOUD, 3], QUIET, "3 is no text"),
        ([*LOUD, None], QUIET, "None is no text"),
        ([LOUD], QUIET, "is no text"),
        (None, QUIET, "the texts to steer are None: give a list"),
    ],
)
def test_texts_that_say_nothing_are_refused(llama, steered, others, said):
    with pytest.raises(InputError, match=said):
        learn_condition(llama, SITE, steered, others)


def test_texts_may_come_one_by_one(llama, condition):
    found = learn_condition(llama, SITE, iter(LOUD[:8]), (text for text in QUIET[:11]))
    assert found.auroc == condition.auroc


@pytest.mark.parametrize("site", [5, None, ["blocks.1.hook_resid_post"], np.zeros(3)])
def test_what_is_neither_a_site_nor_an_sae_is_refused(llama, site):
    with pytest.raises(InputError, match="an SAE is needed, as load_sae returns it"):
        learn_condition(llama, site, LOUD, QUIET)


@pytest.mark.parametrize("site", ["blocks.1.attn.hook_pattern", "blocks.-1.hook_out", "nowhere"])
def test_a_site_that_no_gate_reads_is_refused_before_anything_runs(llama, site):
    with pytest.raises(InputError, match="a condition cannot read"):
        learn_condition(llama, site, LOUD, QUIET)


def test_a_site_that_is_not_there_is_refused(llama):
    with pytest.raises(InputError, match=r"blocks\.9"):
        learn_condition(llama, "blocks.9.hook_resid_post", LOUD, QUIET)


def test_an_sae_of_another_width_is_refused(llama, random_sae):
    with pytest.raises(InputError, match="width"):
        learn_condition(llama, random_sae(d_in=8), LOUD, QUIET)
