import json
import shutil

import pytest
import torch
from tiny import save_tiny_model, tiny_tokenizer

from saepd.common.errors import InputError
from saepd.models.identity import (
    check_model,
    same_model,
    same_name,
    settings_fingerprint,
    weights_fingerprint,
)
from saepd.models.load import load_model


def test_name_and_fingerprint_do_not_follow_the_precision(folder):
    wide, narrow = (load_model(folder, device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    assert {p.dtype for p in wide.original_model.parameters()} == {torch.float32}
    assert {p.dtype for p in narrow.original_model.parameters()} == {torch.bfloat16}
    assert wide.cfg.model_name == narrow.cfg.model_name == "some-model"
    assert weights_fingerprint(wide) == weights_fingerprint(narrow)
    same = load_model(f"{folder}/", device="cpu", dtype=torch.float32)
    assert same.cfg.model_name == "some-model"
    assert weights_fingerprint(same) == weights_fingerprint(wide)


def test_other_weights_have_another_fingerprint(folder, tmp_path):
    fingerprint = weights_fingerprint(load_model(folder, device="cpu"))
    other = load_model(save_tiny_model("llama", tmp_path / "some-model", seed=1), device="cpu")
    assert weights_fingerprint(other) != fingerprint
    changed = load_model(folder, device="cpu")
    assert weights_fingerprint(changed) == fingerprint
    with torch.no_grad():
        changed.original_model.model.layers[2].mlp.up_proj.weight.mul_(1.05)
    assert weights_fingerprint(changed) != fingerprint


def test_the_same_weights_that_compute_or_read_otherwise_have_other_settings(folder, tmp_path):
    model = load_model(folder, device="cpu")
    before = settings_fingerprint(model)
    assert settings_fingerprint(load_model(folder, device="cpu", dtype="bfloat16")) == before
    # Whoever pads sets the tokenizer itself.
    model.tokenizer(["a", "longer"], padding=True, truncation=True, max_length=4)
    assert settings_fingerprint(model) == before

    def changed(name, change):
        copy = tmp_path / name / "some-model"
        shutil.copytree(folder, copy)
        change(copy)
        other = load_model(copy, device="cpu")
        assert weights_fingerprint(other) == weights_fingerprint(model)
        return settings_fingerprint(other)

    def turn_otherwise(copy):
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))

    def other_template(copy):
        (copy / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")

    assert changed("copied", lambda copy: None) == before
    others = {
        changed("computes", turn_otherwise),
        changed("reads", lambda copy: tiny_tokenizer(opens=False).save_pretrained(copy)),
        changed("template", other_template),
    }
    assert len(others | {before}) == 4


def test_equal_weights_settle_it_whatever_the_names(folder, tmp_path):
    model = load_model(folder, device="cpu")
    fingerprint = weights_fingerprint(model)
    assert same_model(model, "quite/another", fingerprint)
    assert not same_model(model, "some-model", "0" * 16)
    assert same_model(model, "owner/Some_Model")
    assert not same_model(model, "other-model")
    assert not same_model(model, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt2-small", "gpt2"),
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2-small", "gpt2.Q4_0"),
        ("gpt2-small", "gpt2-Q8_0.gguf"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("models/Qwen3-0.6B/", "qwen3-0.6b"),
        ("model-BF16", "Model"),
        ("model.IQ4_XS", "model"),
    ],
)
def test_names_of_one_model(one, other):
    assert same_name(one, other)
    assert same_name(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt2-small", "gpt2-medium"),
        ("gemma-2-2b", "gemma-2-2b-it"),
        ("pythia-70m", "pythia-70m-deduped"),
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_names_of_two_models(one, other):
    assert not same_name(one, other)


def test_what_has_no_hooks_is_no_model(folder):
    bridge = load_model(folder, device="cpu")
    check_model(bridge)
    for other in ("gpt2", None, bridge.original_model):
        with pytest.raises(InputError, match=f"load_model returns it, not {type(other).__name__}"):
            check_model(other)
