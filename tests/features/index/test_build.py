import json

import numpy as np
import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.features.index import firings as firings_module
from saepd.features.index.build import build_index
from saepd.features.index.passages import cut_passages
from saepd.models.sites import read_site
from saepd.models.tokens import prompt_ids
from saepd.saes.abilities import encode


def by_hand(model, sae, passages):
    """Latents of every token, each passage alone; zero at the first token and special ones."""
    found = []
    special = set(model.tokenizer.all_special_ids)
    for row in passages.rows:
        [h] = read_site(model, [SITE], [row], lambda batch: [batch.held[SITE][0].clone()])
        f = encode(sae, h.float())
        for i, token in enumerate(row):
            if i == 0 or token in special:
                f[i] = 0
        found.append(f)
    return torch.cat(found).numpy()


def test_numbers_are_those_of_a_run_by_hand(llama, tiny_topk, index, texts, config):
    passages = cut_passages(llama.tokenizer, texts, config)
    f = by_hand(llama, tiny_topk, passages)
    fires = f > 0
    assert index.info["n_counted"] == sum(len(row) - 1 for row in passages.rows)
    assert np.array_equal(index.array("n_firings"), fires.sum(0))
    assert np.allclose(index.density, fires.sum(0) / index.info["n_counted"])
    for latent in np.flatnonzero(fires.sum(0) > 20)[:6].tolist():
        page = index.page(latent)
        own = f[fires[:, latent], latent]
        assert np.isclose(page.quantiles[0.5], np.median(own), rtol=1e-4)
        assert np.isclose(page.quantiles[1.0], own.max(), rtol=1e-5)
        assert sum(page.histogram) == len(own)
        top = page.contexts[0]
        assert (top.kind, top.activation) == ("top", pytest.approx(own.max(), rel=1e-3))
        strengths = [c.activation for c in page.contexts if c.kind == "top"]
        assert strengths == sorted(strengths, reverse=True)


def test_contexts_have_their_activations(llama, tiny_topk, index, texts):
    latent = int(np.argmax(index.density))
    for context in index.contexts(latent)[:4]:
        found = []
        for text in (t for t in texts if context.text in t):
            row = prompt_ids(llama.tokenizer, text)
            [h] = read_site(llama, [SITE], [row], lambda batch: [batch.held[SITE][0].clone()])
            # The tokenizer's own opening stands in front; a token is a byte.
            start = 1 + text.index(context.text)
            f = encode(tiny_topk, h.float())[start : start + len(context.tokens), latent]
            found.append(np.allclose(f, context.activations, rtol=2e-3, atol=1e-3))
        assert any(found)


def test_a_killed_pass_is_gone_on_with(
    llama, tiny_topk, index, tmp_path, monkeypatch, texts, config
):
    monkeypatch.setattr(firings_module, "_PASSAGES_PER_CHUNK", 7)

    def killed(what, done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(llama, tiny_topk, texts, tmp_path / "x", config, progress=killed)
    work = tmp_path / "x" / "unfinished"
    assert json.loads((work / "state.json").read_text())["n_passages"] == 7
    # A chunk that was cut off half-way left more than was recorded.
    with (work / "latents").open("ab") as file:
        file.write(b"\1" * 10)
    read = []
    monkeypatch.setattr(
        firings_module, "read_site", lambda m, s, rows, *a, **k: read.extend(rows)
        or read_site(m, s, rows, *a, **k),
    )  # fmt: skip
    again = build_index(llama, tiny_topk, texts, tmp_path / "x", config)
    assert len(read) == len(texts) - 7
    assert not work.exists()
    for name in ("n_firings", "contexts", "label_words", "together_ids", "tokens"):
        assert np.array_equal(again.array(name), index.array(name)), name
    assert np.allclose(again.array("quantiles"), index.array("quantiles"), rtol=1e-4)


def test_a_finished_index_is_not_built_again(llama, tiny_topk, index, monkeypatch, texts, config):
    monkeypatch.setattr(firings_module, "read_site", None)
    again = build_index(llama, tiny_topk, texts, index.folder, config)
    assert again.info == index.info


def test_a_folder_of_another_index_is_refused(llama, tiny_topk, index, tmp_path, texts, config):
    with pytest.raises(InputError, match="holds an index with another texts"):
        build_index(llama, tiny_topk, texts[:3], index.folder, config)
    with pytest.raises(KeyboardInterrupt):
        build_index(
            llama, tiny_topk, texts, tmp_path / "x", config, progress=_interrupt,
        )  # fmt: skip
    with pytest.raises(InputError, match="unfinished index with another texts"):
        build_index(llama, tiny_topk, texts[:3], tmp_path / "x", config)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        build_index(llama, tiny_topk, texts, tmp_path / "file", config)


def _interrupt(*_):
    raise KeyboardInterrupt


def test_firings_are_put_in_order(llama, tiny_topk, index, tmp_path, monkeypatch, texts, config):
    monkeypatch.setattr(firings_module, "_FIRINGS_PER_CHUNK", 11)
    again = build_index(llama, tiny_topk, texts, tmp_path / "x", config)
    assert np.array_equal(again.array("contexts"), index.array("contexts"))
    assert np.array_equal(again.array("quantiles"), index.array("quantiles"))


def test_texts_of_the_wrong_kind_are_refused(llama, tiny_topk, tmp_path):
    with pytest.raises(InputError, match="not int"):
        build_index(llama, tiny_topk, [3], tmp_path / "x")  # type: ignore[list-item]
    with pytest.raises(InputError, match="cannot read"):
        build_index(llama, tiny_topk, tmp_path / "none.txt", tmp_path / "x")


def test_an_sae_beside_the_stream_has_no_tokens(llama, random_sae, tmp_path, texts, config):
    sae = random_sae(hook_name="blocks.1.mlp.hook_in", d_in=D_MODEL)
    page = build_index(llama, sae, texts, tmp_path / "x", config).page(0)
    assert page.raises == page.lowers == []
