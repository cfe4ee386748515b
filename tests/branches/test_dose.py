from dataclasses import replace

import pytest
import torch
from gated import amount_by_hand, gates
from tiny import D_MODEL, SITE

from saepd.branches.dose import relative_dose
from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents

VECTOR = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))


def held(model, site, prompts):
    """Residuals at every position but special tokens and the first, one prompt at a time."""
    found = []
    for prompt in prompts:
        ids = model.tokenizer(prompt).input_ids
        special = set(model.tokenizer.all_special_ids)
        _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=lambda n: n == site)
        found += [h for i, h in enumerate(cache[site][0]) if i > 0 and ids[i] not in special]
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_dose_is_written_norm_over_held_norm(tiny_bridge, random_sae, architecture):
    model = tiny_bridge(architecture)
    above = "blocks.2.hook_resid_post"
    edit = EditLatents(random_sae(), [1, 5, 9], [3.0, 2.0, 1.0], "scale")
    directions = [
        Direction("vector", SITE, AddVector(VECTOR), coefficient=-2.0),
        Direction("latents", SITE, edit, coefficient=0.5, positions='after("nowhere")'),
        Direction("above", above, AddVector(VECTOR)),
    ]
    first, second, third = relative_dose(model, directions)
    h, upper = held(model, SITE, NEUTRAL_PROMPTS), held(model, above, NEUTRAL_PROMPTS)
    size = float(h.norm(dim=-1).mean())
    assert first == pytest.approx(2 * float(VECTOR.norm()) / size, rel=1e-4)
    # By the whole SAE: what it puts out with edited latents, less what it puts out.
    sae = edit.sae
    f = sae.encode(h)
    edited = f.clone()
    edited[:, [1, 5, 9]] *= torch.tensor([3.0, 2.0, 1.0])
    written = 0.5 * (sae.decode(edited) - sae.decode(f))
    assert second == pytest.approx(float(written.norm(dim=-1).mean()) / size, rel=1e-4)
    assert third == pytest.approx(float(VECTOR.norm() / upper.norm(dim=-1).mean()), rel=1e-4)


def test_a_dose_grows_with_the_coefficient_and_takes_any_prompts(llama):
    direction = Direction("d", SITE, AddVector(VECTOR))
    [one] = relative_dose(llama, direction, ["some text", "and another, longer one"])
    [four] = relative_dose(llama, 4 * direction, ["some text", "and another, longer one"])
    assert four == pytest.approx(4 * one, rel=1e-5)
    assert relative_dose(llama, []) == []


def test_a_gate_is_part_of_the_dose(llama, random_sae, mask_by_hand):
    direction = Direction("d", "blocks.2.hook_resid_post", AddVector(VECTOR))
    for prompt in ("some text", "and another, longer one"):
        [plain] = relative_dose(llama, direction, [prompt])
        for gate in gates(random_sae).values():
            [gated] = relative_dose(llama, replace(direction, gate=gate), [prompt])
            amount = amount_by_hand(llama, prompt, gate, mask_by_hand)
            assert gated == pytest.approx(abs(amount) * plain, rel=1e-3, abs=1e-6)


def test_what_no_dose_can_be_measured_at_is_refused(llama):
    direction = Direction("d", SITE, AddVector(VECTOR))
    with pytest.raises(InputError, match="at least one prompt"):
        relative_dose(llama, direction, [])
    with pytest.raises(InputError, match="no position to measure a dose at"):
        relative_dose(llama, direction, ["<|end|>"])
    with pytest.raises(InputError, match="has width 5"):
        relative_dose(llama, Direction("d", SITE, AddVector([1.0] * 5)))
