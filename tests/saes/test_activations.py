import pytest
import torch
from tiny import save_tiny_model

from saepd.common.errors import InputError
from saepd.models.load import load_model
from saepd.saes.activations import cache_activations, site_activations
from saepd.saes.corpus import Context

SITES = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]


@pytest.fixture
def model(tmp_path):
    return load_model(save_tiny_model("llama", tmp_path / "model"), device="cpu")


def contexts_of(model, *texts):
    for text in texts:
        letters = model.tokenizer(text, add_special_tokens=False).input_ids
        tokens = [model.tokenizer.bos_token_id, *letters]
        yield Context(tokens, [i > 0 for i in range(len(tokens))], "plain")


def scale_embedding(model, factor, character=None):
    weight = model.original_model.get_input_embeddings().weight
    rows = slice(None)
    if character is not None:
        rows = model.tokenizer(character, add_special_tokens=False).input_ids
    with torch.no_grad():
        weight[rows] *= factor


def test_activations_beyond_the_range_of_float16_are_kept(model, tmp_path):
    scale_embedding(model, 1e6)
    group = list(contexts_of(model, "Boats and trains", "Rain"))
    cache = cache_activations(model, iter(group), SITES, tmp_path / "cache", max_tokens=1000)
    expected = site_activations(model, group, SITES)
    assert cache.n_rows == 16 + 4
    assert expected[SITES[0]].abs().max() > 70_000
    assert cache.widths == {SITES[0]: 32, SITES[1]: 64}
    for name in SITES:
        found = cache.rows(name, slice(None))
        torch.testing.assert_close(found, expected[name], rtol=2**-8, atol=0)
        assert torch.equal(cache.sample(name, 7), found[::3])


def test_sinks_are_left_out_of_all_sites(model, tmp_path):
    scale_embedding(model, 1000, "q")
    group = list(contexts_of(model, "a quiet queue", "no such thing here"))
    cache = cache_activations(model, iter(group), SITES, tmp_path / "cache", max_tokens=1000)
    n_q = 2
    assert (cache.n_rows, cache.n_sinks) == (13 + 18 - n_q, n_q)
    assert cache.kinds == {"plain": 13 + 18 - n_q}
    tokens = [t for context in group for t in context.tokens[1:]]
    kept = torch.tensor(
        [t not in model.tokenizer("q", add_special_tokens=False).input_ids for t in tokens]
    )
    for name, rows in site_activations(model, group, SITES).items():
        torch.testing.assert_close(cache.rows(name, slice(None)), rows[kept], rtol=2**-8, atol=0)


def test_no_more_is_cached_than_asked_for_but_the_end_of_a_context(model, tmp_path):
    stream = contexts_of(model, *["Twenty letters a row"] * 1000)
    cache = cache_activations(model, stream, SITES, tmp_path / "cache", max_tokens=50)
    assert cache.n_rows == 3 * 20
    assert len(list(stream)) == 997


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(model, tmp_path, value):
    scale_embedding(model, value, "x")
    with pytest.raises(InputError, match=r"activations at blocks\.0\S+ are not finite"):
        cache_activations(
            model, contexts_of(model, "an axe"), SITES, tmp_path / "cache", max_tokens=5
        )


def test_a_folder_of_other_sites_is_refused(model, tmp_path):
    cache_activations(model, contexts_of(model, "one"), SITES, tmp_path, max_tokens=5)
    with pytest.raises(InputError, match=r"holds activations of blocks\.0\.hook_resid_post, "):
        cache_activations(model, contexts_of(model, "one"), SITES[:1], tmp_path, max_tokens=5)
