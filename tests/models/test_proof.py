import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import save_tiny_model

from saepd.common.errors import InputError
from saepd.models import load as loading
from saepd.models.load import load_model, load_proved
from saepd.models.proof import (
    MIN_PROBABILITY,
    Comparison,
    Proof,
    prove,
    remembered,
    take_probe,
)


def plain_logits(folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(tokens).logits


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mistral"])
def test_a_bridge_that_is_right_is_proved(tmp_path, architecture):
    _, proof = load_proved(save_tiny_model(architecture, tmp_path / architecture), device="cpu")
    assert proof.holds
    assert proof.difference < 1e-4
    assert proof.untested == ""
    whats = [c.what for c in proof.comparisons]
    assert whats == [
        "whole, a short text",
        "whole, a long text",
        "with a cache",
        "padded in a batch",
    ]


def test_a_model_that_was_never_trained_is_proved_though_no_token_is_likely(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "llama")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.vocab_size = 20_000
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    logits = plain_logits(folder, torch.tensor([[1, 5, 9]]))
    assert float(logits.softmax(-1).max()) < MIN_PROBABILITY
    _, proof = load_proved(folder, device="cpu")
    assert proof.holds
    assert proof.difference < 1e-4


def test_a_window_is_looked_beyond(tmp_path):
    _, proof = load_proved(save_tiny_model("mistral", tmp_path / "windowed"), device="cpu")
    assert max(c.n_tokens for c in proof.comparisons) == 120 + 16


def test_attention_that_loses_its_mask_is_made_eager(tmp_path):
    """DeepSeek's attention in a bridge sees the future unless it is eager."""
    folder = save_tiny_model("deepseek_v3", tmp_path / "deepseek")
    for _ in range(2):  # The second time, it is remembered.
        model, proof = load_proved(folder, device="cpu")
        assert proof.holds
        assert proof.attention == "eager"
        tokens = torch.arange(3, 33)[None]
        torch.testing.assert_close(
            model(tokens), plain_logits(folder, tokens), atol=1e-4, rtol=1e-4
        )


def test_a_bridge_that_is_wrong_is_refused_with_the_difference(tmp_path, caplog):
    """Attention in TransformerLens' bridge is not Cohere's."""
    folder = save_tiny_model("cohere", tmp_path / "cohere")
    with pytest.raises(
        InputError, match=r"cohere does not compute .* by up to [\d.]+ nats \("
    ) as e:
        load_model(folder, device="cpu")
    assert "pass trust_bridge=True (--trust-bridge)" in str(e.value)
    model = load_model(folder, device="cpu", trust_bridge=True)
    assert "does not compute what it does in transformers" in caplog.text
    tokens = torch.arange(3, 33)[None]
    assert (model(tokens) - plain_logits(folder, tokens)).abs().max() > 0.01


def test_a_bridge_that_was_changed_is_found_out(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "llama")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model = load_model(folder, device="cpu")
    probe = take_probe(plain, model.tokenizer, "llama")
    assert prove(model, probe).holds
    with torch.no_grad():
        model.original_model.model.layers[2].mlp.up_proj.weight.mul_(1.05)
    found = prove(model, probe)
    assert not found.holds
    assert all(c.difference > 1e-4 for c in found.comparisons)


def test_a_proof_is_made_once_for_the_same_weights_and_configuration(tmp_path, monkeypatch, cache):
    made = []

    def counted(model, probe):
        made.append(model)
        return prove(model, probe)

    monkeypatch.setattr(loading, "prove", counted)
    folder = save_tiny_model("llama", tmp_path / "llama")
    first = load_proved(folder, device="cpu")[1]
    assert load_proved(folder, device="cpu")[1] == first
    assert len(made) == 1
    [file] = (cache.parent / "proofs").iterdir()
    assert remembered(file) == first
    # Another precision, other weights and another configuration are other models.
    load_proved(folder, device="cpu", dtype="bfloat16")
    load_proved(save_tiny_model("llama", tmp_path / "other", seed=1), device="cpu")
    config = json.loads((folder / "config.json").read_text())
    config["rms_norm_eps"] = 1e-3
    (folder / "config.json").write_text(json.dumps(config))
    load_proved(folder, device="cpu")
    assert len(made) == 4
    file.write_text("{")
    assert remembered(file) is None


def test_half_precision_that_overflows_is_said(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "large")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder, device="cpu")
    with pytest.raises(InputError, match="not-a-number in float16 on a plain text: load it in fl"):
        load_model(folder, device="cpu", dtype="float16")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="on a plain text: its weights are damaged"):
        load_model(folder, device="cpu")


def test_what_could_not_be_run_does_not_hold():
    proof = Proof((Comparison("whole", 3, 1e-6),), 1e-4, (), "sdpa")
    assert proof.holds
    for difference in (float("inf"), float("nan")):
        failed = replace(proof, comparisons=(Comparison("padded", 3, difference),))
        assert not failed.holds
