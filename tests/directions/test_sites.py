import pytest
from tiny import SITE

from saepd.common.errors import InputError
from saepd.directions.sites import check_site, check_there


@pytest.mark.parametrize(
    "hook_name",
    [
        "blocks.-1.hook_resid_post",
        "block.1.hook_resid_post",
        "blocks.01.hook_resid_post",
        "blocks.4.hook_resid_post",
        # A part of a block that is no site.
        "blocks.1.mlp",
        "blocks.1.attn",
        "blocks.1.__class__",
        "nonsense",
        5,
        None,
    ],
)
def test_what_is_no_site_of_a_block_is_refused(llama, hook_name):
    for check in (check_site, check_there):
        with pytest.raises(InputError, match=r"has no site .* its blocks are 0\.\.3"):
            check(llama, hook_name, "here")


def test_sites_that_can_be_read_but_not_written_are_told_apart(llama):
    check_site(llama, SITE)
    check_there(llama, "blocks.1.mlp.hook_pre", "here")
    with pytest.raises(InputError, match="edits are not made at"):
        check_site(llama, "blocks.1.mlp.hook_pre")


@pytest.mark.parametrize("model", ["gpt2", None])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(InputError, match="a model with hooks is needed, as load_model returns it"):
        check_site(model, SITE)
