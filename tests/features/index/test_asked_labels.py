import json

import numpy as np
import pytest
import torch
from chat_server import by_letters, refusing, serving
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.features.index import asked_labels
from saepd.features.index.asked_labels import (
    HeldOutTexts,
    LabelFile,
    contexts_of,
    densest,
    label_latents,
)
from saepd.features.index.build import build_index
from saepd.features.index.config import IndexConfig
from saepd.features.index.endpoint import KEY, Endpoint, EndpointConfig
from saepd.features.index.given_labels import detection, read_labels
from saepd.features.index.labels import is_held_out

LETTERS = "zxqj"
# Latents that fire at one letter each; beside them one that never fires.
PLANTED, SILENT = [0, 1, 2, 3], 7


@pytest.fixture(scope="module")
def planted(llama, random_sae):
    """Latents of embeddings: what a model reads first tells one byte from all others."""
    sae = random_sae("standard", d_in=D_MODEL, d_sae=8, hook_name="blocks.0.hook_resid_pre")
    ids = llama.tokenizer.convert_tokens_to_ids(list(LETTERS))
    embedded = llama.W_E.detach().float()
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.fill_(-1.0)
        sae.b_dec.zero_()
        for latent, token in enumerate(ids):
            others = embedded @ embedded[token]
            own = others[token].item()
            others[token] = -torch.inf
            assert own > others.max()
            sae.W_enc[:, latent] = embedded[token]
            sae.b_enc[latent] = -(own + others.max().item()) / 2
    return sae


@pytest.fixture(scope="module")
def index(llama, planted, tmp_path_factory):
    # With these, every planted latent has seven contexts or more that are held out.
    rng = np.random.default_rng(11)
    texts = [f"a{''.join(' ' + c for c in LETTERS if rng.random() < 0.5)} b" for _ in range(240)]
    folder = tmp_path_factory.mktemp("planted") / "x"
    return build_index(llama, planted, texts, folder, IndexConfig())


@pytest.fixture
def held_out(llama, planted, index):
    return HeldOutTexts(llama, planted, index)


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


def ask_of(chat):
    return Endpoint(EndpointConfig(chat.url, "by-letters"), pause=lambda _: None)


def labelled(index, planted, held_out, chat, path, latents):
    file = LabelFile(path, index, planted, "by-letters")
    label_latents(index, latents, ask_of(chat), file, held_out)
    return file


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_planted_latents_are_labelled_and_scored_beside_chance(
    planted, index, held_out, chat, tmp_path
):
    path = tmp_path / "labels.jsonl"
    file = labelled(index, planted, held_out, chat, path, PLANTED)
    assert [row["description"] for row in rows_of(path)] == [f"the letter {c}" for c in LETTERS]
    scores = [detection("", file.rows[latent]) for latent in PLANTED]
    for latent, score in zip(PLANTED, scores, strict=True):
        assert (score.value, score.high) == (1, 1)
        assert 0.5 < score.low < 1
        assert score.null_of in set(PLANTED) - {latent}
        assert score.better
    assert np.mean([score.null for score in scores]) == pytest.approx(0.5, abs=0.12)
    # One request for each label, and two for its score.
    assert len(chat.requests) == 3 * len(PLANTED)


def test_what_labels_are_scored_on_is_no_part_of_what_they_are_made_of(
    planted, index, held_out, chat, tmp_path
):
    labelled(index, planted, held_out, chat, tmp_path / "x", [0, 1])
    for latent in (0, 1):
        passages = index.context_passages(latent)
        texts = [index.passage(int(passage)) for passage in passages]
        contexts = index.contexts(latent)
        assert all(c.text.strip() in text for c, text in zip(contexts, texts, strict=True))
        apart = is_held_out(passages)
        assert 0 < apart.sum() < len(apart)
        for half in (False, True):
            kept = contexts_of(index, latent, held_out=half)
            assert kept == [
                c for c, is_apart in zip(contexts, apart, strict=True) if is_apart == half
            ]
        prompt = chat.prompts[latent]
        n_shown = len(contexts_of(index, latent, held_out=False))
        assert f"\n{n_shown}. " in prompt
        assert f"\n{n_shown + 1}. " not in prompt
        # Once more where the prompt says what the marks are.
        assert prompt.count("<<") == n_shown + 1
        excerpts, fires = held_out.excerpts(latent)
        assert fires.sum() == len(fires) / 2
        assert [LETTERS[latent] in text for text in excerpts] == fires.tolist()
        assert "<<" not in chat.prompts[2 + 2 * latent]


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(
    planted, index, held_out, chat, tmp_path
):
    path, whole = tmp_path / "labels.jsonl", tmp_path / "whole.jsonl"
    labelled(index, planted, held_out, chat, whole, PLANTED)
    asked = list(chat.requests)
    chat.requests.clear()
    for n_answered in (2, 1, 4):
        chat.faults = [*[None] * n_answered, refusing(401)]
        with pytest.raises(InputError, match="answers 401"):
            labelled(index, planted, held_out, chat, path, PLANTED)
    chat.faults = []
    labelled(index, planted, held_out, chat, path, PLANTED)
    assert rows_of(path) == rows_of(whole)
    # Of a score both requests are sent again where only the first was answered.
    assert [one for one in asked if one not in chat.requests] == []
    assert len(chat.requests) <= len(asked) + 1
    chat.requests.clear()
    labelled(index, planted, held_out, chat, path, PLANTED)
    assert chat.requests == []
    assert rows_of(path) == rows_of(whole)


def test_what_is_no_label_is_noted_and_not_asked_for_again(
    planted, index, held_out, chat, tmp_path
):
    path = tmp_path / "labels.jsonl"
    chat.answer = lambda prompt: "x\ny" if "<<z>>" in prompt else by_letters(prompt)
    file = labelled(index, planted, held_out, chat, path, [0, 1, 2, SILENT])
    assert [file.rows[latent]["note"] for latent in (0, 1, 2, SILENT)] == [
        "the answer has several lines", "", "",
        "it never fires in the half of the texts that labels are made of",
    ]  # fmt: skip
    assert set(read_labels([path], planted)) == {1, 2}
    n_asked = len(chat.requests)
    labelled(index, planted, held_out, chat, path, [0, 1, 2, SILENT])
    assert len(chat.requests) == n_asked


def test_a_label_waits_for_another_to_be_compared_with(planted, index, held_out, chat, tmp_path):
    path = tmp_path / "labels.jsonl"
    file = labelled(index, planted, held_out, chat, path, [0])
    assert file.rows[0]["note"] == "not scored: no other label to compare with"
    file = labelled(index, planted, held_out, chat, path, [1, 0])
    assert [detection("", file.rows[latent]).value for latent in (0, 1)] == [1, 1]
    assert file.rows[0]["note"] == ""


def test_answers_that_name_no_excerpts_leave_the_label_unscored(
    planted, index, held_out, chat, tmp_path
):
    chat.answer = lambda prompt: by_letters(prompt) if "<<" in prompt else "all of them"
    file = labelled(index, planted, held_out, chat, tmp_path / "x", [0, 1])
    for latent in (0, 1):
        assert detection("", file.rows[latent]) is None
        assert file.rows[latent]["note"] == "not scored: the model did not say which excerpts"


def test_labels_are_read_as_given_ones_with_what_they_are_worth(
    planted, index, held_out, chat, random_sae, tmp_path
):
    path = tmp_path / "labels.jsonl"
    labelled(index, planted, held_out, chat, path, PLANTED)
    [label] = read_labels([path], planted)[2]
    assert label.text == "the letter q"
    assert label.source.startswith("by-letters, balanced accuracy 1.00 [0.")
    assert "under another latent's label" in label.source
    other = random_sae("standard", d_in=D_MODEL, d_sae=8, seed=1)
    with pytest.raises(InputError, match="line 1 is a label of an SAE with other weights"):
        read_labels([path], other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"explanationModelName": "another"}, "has 'another' as explanationModelName"),
        ({"texts": "0"}, "as texts"),
        ({"sae": "0"}, "other weights"),
        ({"index": "8"}, "this SAE has latents 0 to 7"),
        ({"description": 3}, "no text as description"),
        ({"scores": [{"explanationScoreTypeName": "detection", "value": 2}]}, "score that cannot"),
    ],
)
def test_a_file_of_anything_else_is_not_written_over(
    planted, index, held_out, chat, tmp_path, change, sentence
):
    path = tmp_path / "labels.jsonl"
    labelled(index, planted, held_out, chat, path, [0])
    [row] = rows_of(path)
    path.write_text(json.dumps(row | change) + "\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=sentence) as caught:
        LabelFile(path, index, planted, "by-letters")
    assert f"{path}, line 1" in str(caught.value)
    assert path.read_bytes() == before


def test_an_unknown_latent_is_refused_before_anything_is_asked(
    planted, index, held_out, chat, tmp_path
):
    with pytest.raises(InputError, match="no latent 8"):
        labelled(index, planted, held_out, chat, tmp_path / "x", [0, 8])
    assert chat.headers == []


def test_the_densest_are_those_that_are_ever_silent(index, monkeypatch):
    order = sorted(PLANTED, key=lambda latent: -index.density[latent])
    assert densest(index, 8) == order
    assert densest(index, 2) == order[:2]
    monkeypatch.setattr(asked_labels, "_MOST_DENSITY", float(index.density[order[1]]))
    assert densest(index, 8) == order[1:]
    monkeypatch.setattr(asked_labels, "_MOST_DENSITY", 0)
    with pytest.raises(InputError, match="name some to label"):
        densest(index, 8)
