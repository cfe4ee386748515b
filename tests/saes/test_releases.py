import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from saepd.common.errors import InputError
from saepd.models.identity import same_name
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
