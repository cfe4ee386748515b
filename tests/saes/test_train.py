from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import D_MODEL, SITE, save_tiny_model, save_tiny_sae

from saepd.common.errors import InputError
from saepd.models.load import load_model
from saepd.saes.activations import ActivationCache, cache_activations
from saepd.saes.card import write_card
from saepd.saes.config import CorpusConfig, TrainConfig
from saepd.saes.corpus import Context, contexts, read_documents
from saepd.saes.fits import explained_variance
from saepd.saes.load import load_sae
from saepd.saes.measure import _text_context, firing_rates, measure_sae
from saepd.saes.train import train_saes

SITES = ("blocks.2.hook_resid_post", SITE)
CONFIG = TrainConfig(
    sites=SITES,
    expansion=4,
    k=8,
    tokens=6_000,
    training_tokens=128 * 150,
    batch_size=128,
    lr=3e-3,
    dead_window=20,
    autocast=False,
    model_dtype="float32",
    checkpoints=3,
    card_contexts=6,
    corpus=CorpusConfig(context_size=64, passage_characters=80, held_out_share=0.2),
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return load_model(model_folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    words = "river stone market letter winter garden question answer morning".split()  # noqa: SIM905
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as file:
        for _ in range(60):
            text = " ".join(" ".join(rng.choice(words, 6)).capitalize() + "." for _ in range(8))
            file.write(json.dumps({"text": text}) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(model_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run: ``out`` and ``work`` in one folder."""
    root = tmp_path_factory.mktemp("trained")
    train_saes(
        CONFIG,
        model_folder,
        [corpus],
        root / "out",
        root / "work",
        eval_texts={"words": ["Stone market garden answer.", "<|start|>user\nRiver?<|end|>"]},
    )
    return root


def test_training_reconstructs_text_it_has_not_seen(trained: Path, model: Any):
    for site in SITES:
        sae = load_sae(trained / "out" / site, model=model)
        assert sae.cfg.architecture() == "topk"
        assert sae.cfg.d_sae == 4 * D_MODEL
        assert sae.cfg.metadata.model_name == "model"
        assert sae.cfg.metadata.saepd_training["k"] == 8
        assert sae.cfg.metadata.probe_explained_variance > 0.5
        torch.testing.assert_close(
            sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae), atol=2e-3, rtol=0
        )


def test_training_beats_the_untrained_start(
    trained: Path, model_folder: Path, corpus: Path, tmp_path: Path
):
    start = replace(CONFIG, training_tokens=CONFIG.batch_size, sites=(SITE, SITES[0]))
    train_saes(start, model_folder, [corpus], tmp_path, trained / "work")
    card, untrained = (
        json.loads((root / SITE / "card.json").read_text()) for root in (trained / "out", tmp_path)
    )
    for kind in ("plain", "chat", "questionnaire"):
        if kind in card["sets"]:
            before = untrained["sets"][kind]["explained_variance"]
            assert card["sets"][kind]["explained_variance"] > before + 0.2
    recovered = card["cross_entropy"]["recovered_from_zero"]
    assert recovered > untrained["cross_entropy"]["recovered_from_zero"]


def test_what_is_written_is_small_and_names_no_folder(trained: Path):
    folder = trained / "out" / SITE
    assert json.loads((folder / "cfg.json").read_text())["dtype"] == "float16"
    weights = load_file(folder / "sae_weights.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16}
    for path in (folder / "cfg.json", folder / "card.json", folder / "README.md"):
        assert str(trained) not in path.read_text()
        assert str(folder.parent) not in path.read_text()


def test_finished_sites_are_not_trained_again(
    trained: Path, model_folder: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saepd.saes.train._train_site", lambda *_: pytest.fail("trained again"))
    # Given as text, too.
    out, work = str(trained / "out"), str(trained / "work")
    folders = train_saes(CONFIG, model_folder, [str(corpus)], out, work)
    assert folders == [trained / "out" / site for site in SITES]


@contextmanager
def _stopped_after(steps: int) -> Iterator[None]:
    """An interruption of the training that would take more steps than these."""
    from sae_lens.training.sae_trainer import SAETrainer

    step: Callable[..., Any] = SAETrainer.step
    left = iter(range(steps))

    def limited(self: Any, batch: torch.Tensor) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SAETrainer, "step", limited)
        yield


# Before the first checkpoint, between two checkpoints, and within the second site.
@pytest.mark.parametrize("steps", [10, 100, 250])
def test_interrupted_training_ends_as_an_undisturbed_one(
    trained: Path, model_folder: Path, corpus: Path, tmp_path: Path, steps: int
):
    arguments = (CONFIG, model_folder, [corpus], tmp_path / "out", tmp_path / "work")
    with _stopped_after(steps), pytest.raises(KeyboardInterrupt):
        train_saes(*arguments)
    # Two sites of 150 steps, checkpoints every 38: at most 37 steps are done twice.
    with _stopped_after(300 - steps + 37):
        train_saes(*arguments)
    for site in SITES:
        expected = load_file(trained / "out" / site / "sae_weights.safetensors")
        found = load_file(tmp_path / "out" / site / "sae_weights.safetensors")
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=2e-3, rtol=2e-3)
    assert len(list((tmp_path / "work" / "checkpoints" / SITE).glob("[0-9]*"))) == 1


def test_interrupted_caching_gives_the_same_rows(model: Any, corpus: Path, tmp_path: Path):
    documents = read_documents([corpus])

    def run(folder: Path, progress: Callable[[int], None] | None = None) -> ActivationCache:
        stream = contexts(documents, model.tokenizer, CONFIG.corpus, held_out=False)
        return cache_activations(
            model, stream, list(SITES), folder, max_tokens=40_000, progress=progress
        )

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", interrupt)
    with (tmp_path / "resumed" / f"{SITE}.bf16").open("ab") as file:
        file.write(b"half a chunk")
    resumed, whole = run(tmp_path / "resumed"), run(tmp_path / "whole")
    # The last context may overshoot, by less than its own length.
    assert resumed.n_rows == whole.n_rows
    assert 40_000 <= whole.n_rows < 40_000 + CONFIG.corpus.context_size
    for site in SITES:
        every = slice(None)
        assert torch.equal(resumed.rows(site, every), whole.rows(site, every))


def test_work_folder_of_another_corpus_is_refused(
    trained: Path, model_folder: Path, corpus: Path, tmp_path: Path
):
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text())
    with pytest.raises(InputError, match="another model, corpus or corpus configuration"):
        train_saes(CONFIG, model_folder, [other], tmp_path / "out", trained / "work")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": ("blocks.9.hook_resid_post",)}, r"no site blocks\.9"),
    ],
)
def test_unusable_settings_are_refused(
    model_folder: Path, corpus: Path, tmp_path: Path, change: dict[str, Any], message: str
):
    config = replace(CONFIG, **change)
    with pytest.raises(InputError, match=message):
        train_saes(config, model_folder, [corpus], tmp_path / "out", tmp_path / "work")


def test_card_agrees_with_an_independent_computation(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    sae = load_sae(folder)
    sae.W_dec.data *= 0.7
    with torch.no_grad():
        sae.state_dict()["b_enc"][:5] = -1e4
    tokenizer = model.tokenizer
    texts = ["The harbour is quiet today.", "Nobody asked for a second letter."]
    held_out = []
    for text in texts:
        tokens = tokenizer(text).input_ids
        held_out.append(Context(tokens, [i > 0 for i in range(len(tokens))], "plain"))
    card = measure_sae(model, sae, held_out, {"extra": [texts[1]]})

    x, losses = [], {"base": 0.0, "sae": 0.0, "zero": 0.0, "mean": 0.0}
    for context in held_out:
        _, cache = model.run_with_cache(torch.tensor([context.tokens]))
        x.append(cache[SITE][0, 1:])
    mean = torch.cat(x).mean(0)
    for context in held_out:
        tokens = torch.tensor([context.tokens])
        for name, new in {
            "base": lambda h: h,
            "sae": lambda h: sae.decode(sae.encode(h)),
            "zero": lambda h: h * 0,
            "mean": lambda h: mean.expand_as(h),
        }.items():

            def hook(h: torch.Tensor, hook: object, new: Any = new) -> torch.Tensor:
                return torch.cat([h[:, :1], new(h[:, 1:])], dim=1)

            logits = model.run_with_hooks(tokens, fwd_hooks=[(SITE, hook)])
            log_probs = logits.log_softmax(-1)[0, 1:-1]
            losses[name] -= float(log_probs.gather(1, tokens[0, 2:, None]).detach().sum())
    n = sum(len(c.tokens) - 2 for c in held_out)
    rows = torch.cat(x)
    active = sae.encode(rows) > 0

    ce = card["cross_entropy"]
    assert ce["positions"] == n
    for name, loss in losses.items():
        assert ce[name] == pytest.approx(loss / n, rel=1e-5)
    for ablation in ("zero", "mean"):
        expected = (losses[ablation] - losses["sae"]) / (losses[ablation] - losses["base"])
        assert ce[f"recovered_from_{ablation}"] == pytest.approx(expected, rel=1e-4)
    for name, of in {"plain": rows, "extra": x[1]}.items():
        assert card["sets"][name]["explained_variance"] == pytest.approx(
            explained_variance(of, sae(of)), abs=1e-5
        )
        assert card["sets"][name]["l0"] == pytest.approx(
            float((sae.encode(of) > 0).sum(1).float().mean()), rel=1e-5
        )
    assert card["latents"]["rows"] == len(rows)
    assert card["latents"]["dead_share"] == pytest.approx(float((~active.any(0)).float().mean()))
    dense = active.float().mean(0) > 0.1
    assert card["latents"]["dense_share"] == pytest.approx(float(dense.float().mean()))


def test_chat_texts_are_counted_as_in_training(model: Any):
    tokenizer = model.tokenizer
    messages = [{"role": "user", "content": "Hello there"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    context = _text_context(tokenizer, text, "chat")
    kept = [t for t, keep in zip(context.tokens, context.keep, strict=True) if keep]
    assert tokenizer.decode(kept) == "Hello there\n"


def test_firing_rates_over_given_rows(tmp_path: Path):
    sae = load_sae(save_tiny_sae(tmp_path))
    rows = torch.zeros(10, D_MODEL)
    rows[:3, 0] = 2
    rates = firing_rates(sae, rows)
    assert rates[0] == pytest.approx(0.3)
    assert rates[1:].sum() == 0


def test_card_marks_what_was_not_reached(tmp_path: Path, trained: Path):
    card = json.loads((trained / "out" / SITE / "card.json").read_text())
    card["sets"]["plain"]["explained_variance"] = 0.849
    card["sets"]["words"]["explained_variance"] = 0.801
    write_card(tmp_path, card)
    reached = {
        a["what"]: a["reached"] for a in json.loads((tmp_path / "card.json").read_text())["aims"]
    }
    assert not reached["explained variance, plain"]
    assert reached["explained variance, words"]
    text = (tmp_path / "README.md").read_text()
    assert "| explained variance, plain | >= 0.85 | 0.849 | no |" in text
    assert "| explained variance, words | >= 0.8 | 0.801 | yes |" in text


def test_whether_contexts_begin_with_a_bos_is_written_as_it_is(trained: Path, model: Any):
    config = json.loads((trained / "out" / SITE / "cfg.json").read_text())
    tokens = model.tokenizer("A passage").input_ids
    assert config["metadata"]["prepend_bos"] == (tokens[0] == model.tokenizer.bos_token_id)
