import pytest
import torch
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.features.index.build import build_index
from saepd.features.index.labels import Term
from saepd.features.index.latent_page import label_line


def test_a_page_is_whole_and_json(index):
    for latent in range(index.d_sae):
        page = index.page(latent)
        assert page.latent == latent
        assert {n.latent for n in page.alike}.isdisjoint({latent})
        assert all(0 <= share <= 1 for share in page.places.values())
        for context in page.contexts:
            assert len(context.tokens) == len(context.activations)
            assert context.activation > 0
        told = page.to_dict()
        assert told["label"] == page.label
        assert [c["tokens"] for c in told["contexts"]] == [c.tokens for c in page.contexts]


def test_latents_behind_the_last_that_fires_have_a_page(llama, random_sae, texts, tmp_path):
    sae = random_sae("standard", d_in=D_MODEL, d_sae=4)
    with torch.no_grad():
        sae.b_enc[2:] = -1e3
    index = build_index(llama, sae, texts[:6], tmp_path / "x")
    assert index.density[:2].all()
    for latent in (2, 3):
        page = index.page(latent)
        assert (page.contexts, page.label) == ([], "never fires")
        assert index.context_passages(latent).tolist() == []


def test_a_context_is_in_the_passage_that_is_named(index, texts):
    passages = [index.passage(i) for i in range(index.info["n_passages"])]
    # As far as they were read: the longest are cut.
    assert all(text.startswith(p) for p, text in zip(sorted(passages), sorted(texts), strict=True))
    for latent in range(index.d_sae):
        contexts, passages = index.contexts(latent), index.context_passages(latent)
        for context, passage in zip(contexts, passages.tolist(), strict=True):
            assert context.text in index.passage(passage)


def test_a_page_shows_itself(index):
    page = index.page(int(index.density.argmax()))
    html = page._repr_html_()
    assert page.label in html
    assert html.count('class="strip"') == len(page.contexts) == len(page.frame())
    assert f"{page.contexts[0].activation:.2f}" in html
    assert page.frame().activation.tolist() == [c.activation for c in page.contexts]
    assert repr(page).startswith(f"LatentPage({page.latent}: {page.label!r}")


def test_the_frame_has_every_latent(index):
    frame = index.frame()
    assert frame.latent.tolist() == list(range(48))
    latent = int(index.density.argmax())
    row, page = frame.loc[latent], index.page(latent)
    assert (row.label, row.n_firings, row.density) == (page.label, page.n_firings, page.density)
    assert row.largest == page.quantiles[1.0]


def test_shares_of_all_windows_are_those_of_the_pages(index):
    shares = index.window_shares()
    latent = int(index.density.argmax())
    for row, context in zip(shares[latent], index.contexts(latent), strict=False):
        activations = [a for a in context.activations if a > 0]
        found = (row[row > 0] * index.largest[latent]).tolist()
        # The window may reach into passages beside the context's own.
        assert all(any(abs(a - b) < 1e-3 for b in found) for a in activations)


@pytest.mark.parametrize("latent", [-1, 48, "3", 1.0, True, None])
def test_unknown_latents_are_refused(index, latent):
    with pytest.raises(InputError, match="has latents 0 to 47"):
        index.page(latent)


def test_a_label_reads_as_a_line():
    terms = [Term("road", "near", 1.0), Term("bus", "at", 3.0), Term("the", "after", 2.0)]
    assert label_line(terms) == "bus; after the; near road"
    assert label_line([]) == ""
