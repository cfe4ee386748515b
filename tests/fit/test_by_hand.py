import pytest
import torch
from tiny import SITE

from saepd.branches.dose import relative_dose
from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.fit.by_hand import steer, strengthened
from saepd.fit.config import HandConfig

LATENTS = {3: 4.0, 7: -2.0}


def kl_of(model, together):
    return float(kl_to_base(branch(model, NEUTRAL_PROMPTS, [together]))[0])


def test_latents_by_hand_are_added(llama, random_sae):
    sae = random_sae()
    direction = steer(llama, sae, LATENTS, name="mine")
    assert (direction.perspective, direction.hook_name) == ("mine", SITE)
    assert (direction.positions, direction.coefficient) == ("answer", 1.0)
    expected = 4 * sae.W_dec[3] - 2 * sae.W_dec[7]
    torch.testing.assert_close(direction.constant, expected)
    assert steer(llama, sae, LATENTS, HandConfig(strength=3)).coefficient == 3


@pytest.mark.parametrize("mode", ["scale", "clamp", "ablate"])
def test_latents_by_hand_take_every_mode(llama, random_sae, mode):
    sae = random_sae()
    given = list(LATENTS) if mode == "ablate" else LATENTS
    direction = steer(llama, sae, given, HandConfig(mode=mode, positions="all"))
    assert (direction.edit.mode, direction.positions) == (mode, "all")
    h = torch.randn(5, sae.cfg.d_in)
    f = sae.encode(h)
    edited = f.clone()
    for latent, value in LATENTS.items():
        edited[:, latent] = {"scale": f[:, latent] * value, "clamp": value, "ablate": 0}[mode]
    expected = sae.decode(edited) - sae.decode(f)
    torch.testing.assert_close(direction.delta(h), expected, atol=1e-5, rtol=1e-4)


def test_a_strength_may_be_a_dose_or_a_budget(llama, random_sae):
    sae, above = random_sae(), random_sae(hook_name="blocks.2.hook_resid_post", seed=1)
    dosed = steer(llama, sae, LATENTS, HandConfig(relative_dose=0.2))
    assert relative_dose(llama, dosed) == pytest.approx([0.2], rel=1e-5)
    # Of several sites, shares are kept, and the doses add up.
    two = [steer(llama, sae, LATENTS), steer(llama, above, {1: 2.0}, HandConfig(strength=-3))]
    both = strengthened(llama, two, HandConfig(relative_dose=0.3))
    assert sum(relative_dose(llama, both)) == pytest.approx(0.3, rel=1e-5)
    assert both[1].coefficient / both[0].coefficient == pytest.approx(-3)
    both = strengthened(llama, two, HandConfig(kl_budget=0.05))
    assert kl_of(llama, both) <= 0.05 * (1 + 1e-3)
    assert kl_of(llama, [2 ** (1 / 9) * d for d in both]) > 0.05 * (1 - 1e-3)
    assert both[1].coefficient / both[0].coefficient == pytest.approx(-3)


def test_what_was_found_by_hand_is_saved_like_any_direction(llama, random_sae, tmp_path):
    sae = random_sae()
    direction = steer(llama, sae, LATENTS, HandConfig(relative_dose=0.2))
    save_to_disk(direction, tmp_path)
    [loaded] = load_from_disk(tmp_path, llama, sae)
    assert loaded.coefficient == pytest.approx(direction.coefficient)
    assert torch.equal(loaded.edit.latents, direction.edit.latents)
    assert loaded.lineage["by_hand"]["relative_dose"] == 0.2
    assert loaded.lineage["model_fingerprint"] == direction.lineage["model_fingerprint"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "push"}, "unknown mode 'push'"),
        ({"positions": "somewhere"}, "unknown positions"),
        ({"strength": float("inf")}, "the strength is inf"),
        ({"relative_dose": -1}, "the relative dose is -1"),
        ({"kl_budget": "much"}, "the KL budget is 'much'"),
        ({"strength": 2.0, "kl_budget": 0.1}, "a strength and a KL budget are given"),
        ({"relative_dose": 0.1, "kl_budget": 0.1}, "a relative dose and a KL budget are given"),
    ],
)
def test_a_configuration_that_is_none_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        HandConfig(**settings)


def test_what_cannot_be_steered_is_refused(llama, random_sae):
    sae = random_sae()
    with pytest.raises(InputError, match=r"latent ids must be in 0\.\.47"):
        steer(llama, sae, {48: 1.0})
    with pytest.raises(InputError, match="at least one id"):
        steer(llama, sae, {})
    with pytest.raises(InputError, match="mode 'add' needs values"):
        steer(llama, sae, [3])
    with pytest.raises(InputError, match="leave out the values"):
        steer(llama, sae, LATENTS, HandConfig(mode="ablate"))
    with pytest.raises(InputError, match="latents are 5: give"):
        steer(llama, sae, 5)
    with pytest.raises(InputError, match="config is 'add': it must be of class HandConfig"):
        steer(llama, sae, LATENTS, "add")
    with pytest.raises(InputError, match="an SAE is needed"):
        steer(llama, "some/folder", LATENTS)
    with pytest.raises(InputError, match=r"blocks\.9\.hook_resid_post, which llama does not have"):
        steer(llama, random_sae(hook_name="blocks.9.hook_resid_post"), LATENTS)
    with pytest.raises(InputError, match="width"):
        steer(llama, random_sae(d_in=16), LATENTS)
    nothing = Direction("none", SITE, AddVector(torch.zeros(32)))
    with pytest.raises(InputError, match="'none' writes nothing on neutral prompts"):
        strengthened(llama, nothing, HandConfig(relative_dose=0.1))
