import pytest
import torch
import transformers
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from tiny import save_tiny_model

from saepd.common.errors import InputError
from saepd.models.identity import same_name
from saepd.models.load import load_model
from saepd.saes.load import load_sae
from saepd.saes.releases import check_release


@pytest.mark.parametrize(
    ("release", "sae_id", "match"),
    [
        ("gpt2-smal-res-jb", "blocks.8.hook_resid_pre", r"no SAELens release .*gpt2-small-res-jb"),
        ("gpt2-small-res-jb", None, r"has 13 SAEs and needs a sae_id as well: blocks\.0\."),
        (
            "gpt2-small-res-jb",
            "blocks.8.hook_resid_prex",
            r"'gpt2-small-res-jb' has no SAE 'blocks\.8\.hook_resid_prex': .*\.8\.hook_resid_pre,",
        ),
        ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16", "layer_20/width_16k/canonical"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_nearest(release, sae_id, match):
    with pytest.raises(InputError, match=match):
        load_sae(release, sae_id)


def test_what_may_be_right_is_not_refused():
    check_release("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    check_release("somebody/some-repository", "a/path")


def test_every_release_names_a_model_that_its_hub_id_names_too():
    """The hub id that TransformerLens loads for the name in a release is the same model."""
    from transformer_lens.loading_from_pretrained import get_official_model_name

    checked = 0
    for release, entry in get_pretrained_saes_directory().items():
        try:
            official = get_official_model_name(entry.model)
        except ValueError:
            continue
        checked += 1
        assert same_name(entry.model, official), (release, entry.model, official)
    assert checked > 60


def test_the_mlps_input_behind_its_norm_is_the_site_that_gemma_scope_2_means(tmp_path):
    # It names modules of transformers; the bridge's sites must hold what these give.
    folder = save_tiny_model("gemma2", tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    seen = {}
    for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
        module = plain.get_submodule(f"model.layers.2.{name}")
        with torch.no_grad():
            module.weight += 0.5 * torch.randn(module.weight.shape)
        module.register_forward_hook(lambda _m, _a, h, name=name: seen.update({name: h}))
    plain.save_pretrained(folder)
    tokens = torch.arange(9).unsqueeze(0)
    with torch.inference_mode():
        plain(tokens)
    _, cache = load_model(folder, device="cpu").run_with_cache(tokens)
    for site, name in {
        "blocks.2.mlp.hook_in": "pre_feedforward_layernorm",
        "blocks.2.hook_mlp_out": "post_feedforward_layernorm",
    }.items():
        torch.testing.assert_close(cache[site], seen[name], atol=1e-5, rtol=1e-4)
