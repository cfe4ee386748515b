import json

import pytest
import torch
from tiny import D_MODEL, SITE

pytest.importorskip("plotly")

from saepd.branches.writing.compare import compare
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.features.index.build import build_index
from saepd.features.index.config import IndexConfig
from saepd.features.index.text_page import read_text
from saepd.merge.config import MergeConfig
from saepd.pages.figures import latent_figure
from saepd.pages.token_figures import strip_figure, text_figure, trace_figure


def test_the_strip_shows_every_token(llama):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    sampling = SamplingConfig(max_new_tokens=30, temperature=1.1)
    [found] = compare(llama, ["So?"], Direction("d", SITE, AddVector(vector)), sampling)
    figure = strip_figure(found)
    for drawn, pieces in zip(figure.data, found.pieces().values(), strict=True):
        shown = [text for line in drawn.text for text in line]
        assert "".join(shown).replace("&lt;", "<") == "".join(p.text for p in pieces)
        assert [z for line in drawn.z for z in line] == [p.value for p in pieces]
    json.loads(figure.to_json())


def test_the_trace_shows_every_branch_at_every_token(llama):
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    directions = [Direction(str(i), SITE, AddVector(v)) for i, v in enumerate(vectors)]
    sampling = SamplingConfig(max_new_tokens=12, temperature=1.1)
    [text] = generate_batch(llama, ["So?"], directions, MergeConfig(), sampling, trace=True)
    figure = trace_figure(text, ["one", "two"])
    [drawn] = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["one", "two"]
    assert len(drawn.z) == 2
    for i, row in enumerate(drawn.z):
        assert list(row) == [step.kl[i] for step in text.steps]
    shown = [token.replace("&lt;", "<") for token in figure.layout.xaxis.ticktext]
    assert shown == [step.text for step in text.steps]
    json.loads(figure.to_json())
    with pytest.raises(InputError, match="1 names for 2 branches"):
        trace_figure(text, ["one"])
    [untraced] = generate_batch(llama, ["So?"], directions, MergeConfig(), sampling)
    with pytest.raises(InputError, match="without a trace"):
        trace_figure(untraced)


@pytest.fixture(scope="module")
def index(llama, sae, tmp_path_factory):
    texts = [f"the {word} of {n} trees." for n in range(12) for word in ("bus", "sea")]
    folder = tmp_path_factory.mktemp("index") / "x"
    return build_index(llama, sae, texts, folder, IndexConfig(context_size=40))


@pytest.fixture(scope="module")
def sae(random_sae):
    return random_sae("topk", d_in=D_MODEL, d_sae=48, k=6)


def test_the_latents_of_a_text_are_drawn_by_token(llama, sae, index):
    page = read_text(llama, sae, "A <bus>! Zebra", index, n=5)
    figure = text_figure(page)
    [drawn] = figure.data
    assert [list(row) for row in drawn.customdata] == page.activations.tolist()
    shown = "".join(figure.layout.xaxis.ticktext)
    assert shown.replace("&lt;", "<") == "A <bus>! Zebra"
    assert "<b" not in shown
    assert [n.split(":")[0] for n in figure.layout.yaxis.ticktext] == [
        str(one.latent) for one in page.latents
    ]
    json.loads(figure.to_json())


def test_a_latent_is_drawn_by_activation_and_place(index):
    latent = int(index.density.argmax())
    page = index.page(latent)
    figure = latent_figure(page)
    by_activation, by_place = figure.data
    assert sum(by_activation.y) == page.n_firings
    assert list(by_place.y) == list(page.places.values())
    with pytest.raises(InputError, match="never fires"):
        latent_figure(page._replace(n_firings=0))
