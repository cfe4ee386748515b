import numpy as np
import pytest
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.features.index.search import search
from saepd.features.index.text_page import read_text
from saepd.models.sites import read_site
from saepd.models.tokens import prompt_ids
from saepd.saes.abilities import encode

TEXT = "A <b>bus</b>! Zebra"


def test_a_text_is_read_token_by_token(llama, tiny_topk, index):
    page = read_text(llama, tiny_topk, TEXT, index.folder, n=6)
    assert "".join(page.tokens) == TEXT
    assert page.latents == search(None, index, texts=TEXT, model=llama, sae=tiny_topk, n=6)
    row = prompt_ids(llama.tokenizer, TEXT)
    [h] = read_site(llama, [SITE], [row], lambda batch: [batch.held[SITE][0].clone()])
    f = encode(tiny_topk, h.float()).numpy()
    # The first token, which the tokenizer puts in front, does not count.
    own = f[1:, [one.latent for one in page.latents]].T
    np.testing.assert_allclose(page.activations[:, 1:], own, rtol=1e-4, atol=1e-5)
    assert not page.activations[:, 0].any()
    largest = index.largest[[one.latent for one in page.latents]]
    seen = largest > 0
    expected = page.activations[seen] / largest[seen, None]
    np.testing.assert_allclose(page.shares[seen], expected)


def test_latents_that_are_named_are_shown_whether_they_fire_or_not(llama, tiny_topk, index):
    unusual = read_text(llama, tiny_topk, TEXT, index, n=1).latents[0].latent
    silent = next(i for i in range(48) if i not in set(
        read_text(llama, tiny_topk, TEXT, index, n=48).frame().latent))  # fmt: skip
    page = read_text(llama, tiny_topk, TEXT, index, latents=[silent, unusual])
    assert [one.latent for one in page.latents] == [silent, unusual]
    assert page.latents[0].context is None
    assert not page.activations[0].any()
    assert page.activations[1].any()
    with pytest.raises(InputError, match="has latents 0 to 47"):
        read_text(llama, tiny_topk, TEXT, index, latents=[48])


def test_a_page_of_a_text_shows_itself(llama, tiny_topk, index):
    page = read_text(llama, tiny_topk, TEXT, index, n=6)
    html = page._repr_html_()
    assert "<b>bus" not in html
    assert "&lt;" in html
    assert str(page.latents[0].latent) in html
    frame = page.frame()
    assert len(frame) == (page.activations > 0).sum()
    assert set(frame.latent) == {one.latent for one in page.latents}
    assert repr(page).startswith(f"TextPage({len(page.tokens)} tokens; {page.latents[0].latent} (")


@pytest.mark.parametrize(
    ("text", "n", "sentence"),
    [(" ", 3, "empty or no text"), (3, 3, "empty or no text"), ("bus", 0, "at least 1")],
)
def test_what_cannot_be_read_is_said(llama, tiny_topk, index, text, n, sentence):
    with pytest.raises(InputError, match=sentence):
        read_text(llama, tiny_topk, text, index, n=n)


def test_an_index_at_hand_must_be_of_the_sae(llama, random_sae, index):
    other = random_sae("topk", d_in=D_MODEL, d_sae=48, k=6, seed=1)
    for found in (index, index.folder):
        with pytest.raises(InputError, match="is an index of another SAE"):
            read_text(llama, other, TEXT, found)
        with pytest.raises(InputError, match="is an index of another SAE"):
            search(None, found, texts=TEXT, model=llama, sae=other)


def test_an_sae_without_an_index_is_told_how_to_get_one(llama, tiny_topk):
    with pytest.raises(InputError, match="build one with saepd index"):
        read_text(llama, tiny_topk, "bus")
