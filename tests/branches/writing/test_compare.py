import pytest
import torch
from scipy.stats import entropy
from tiny import ARCHITECTURES, D_MODEL, SITE

from saepd.branches.writing.compare import compare
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.models.tokens import prompt_ids

PROMPTS = ["So?", "What is to be done about it?"]


def dense(seed, positions="all", hook_name=SITE):
    vector = 1.5 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(f"p{seed}", hook_name, AddVector(vector), positions=positions)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kl_of_each_token_is_that_of_two_plain_forwards(tiny_bridge, random_sae, architecture):
    model = tiny_bridge(architecture)
    edit = EditLatents(random_sae(hook_name="blocks.2.hook_resid_pre"), [1, 4], [2.0, 1.0], "clamp")
    together = [dense(1), Direction("s", "blocks.2.hook_resid_pre", edit, positions="all")]
    sampling = SamplingConfig(max_new_tokens=8)
    for prompt, found in zip(PROMPTS, compare(model, PROMPTS, together, sampling), strict=True):
        assert found.prompt == prompt
        row = prompt_ids(model.tokenizer, prompt)
        for written in (found.base, found.steered):
            tokens = torch.tensor([[*row, *written.tokens]])
            with torch.inference_mode():
                base = model(tokens)[0].softmax(-1)
                with apply_all(model, together):
                    steered = model(tokens)[0].softmax(-1)
            for i, step in enumerate(written.steps):
                at = len(row) + i - 1
                [kl] = step.kl
                assert kl == pytest.approx(entropy(base[at], steered[at]), rel=1e-3, abs=1e-6)
            assert len(written.steps) == len(written.tokens)
        assert max(step.kl[0] for step in found.steered.steps) > 0.01


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_the_texts_are_those_that_the_branches_write_alone(llama, temperature):
    sampling = SamplingConfig(max_new_tokens=12, temperature=temperature, seed=3)
    told = []
    found = compare(llama, PROMPTS, dense(2), sampling, progress=lambda *done: told.append(done))
    apart = generate_branches(llama, PROMPTS, [dense(2)], sampling)
    for one, (base, steered) in zip(found, apart, strict=True):
        assert (one.base.tokens, one.base.text) == (base.tokens, base.text)
        assert (one.steered.tokens, one.steered.text) == (steered.tokens, steered.text)
    assert found[0].base.tokens != found[0].steered.tokens
    assert told[-1] == (4, 4)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_nothing_to_compare_with_is_refused(llama):
    with pytest.raises(InputError, match="a branch has no directions"):
        compare(llama, PROMPTS, [])
    with pytest.raises(InputError, match="at least one prompt"):
        compare(llama, [], dense(1))
