import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import save_tiny_model

from saepd.common.errors import InputError
from saepd.models.load import load_model
from saepd.models.weights import check_complete

BIAS = "model.layers.0.self_attn.q_proj.bias"


def rewritten(folder, change):
    """The folder's weights, changed in place."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def without(part):
    return lambda weights: [weights.pop(name) for name in list(weights) if part in name]


CHANGES = {
    "no last block": (without("layers.3."), r"lacks 9 weights \(model.layers.3.input_layernorm"),
    "no head": (without("lm_head"), r"lacks a weight \(lm_head.weight\), and random numbers"),
    "a bias more": (
        lambda weights: weights.update({BIAS: torch.ones(32)}),
        rf"holds a weight \({BIAS}\), for which its config.json has no place",
    ),
    "another shape": (
        lambda weights: weights.update({"model.norm.weight": torch.ones(31)}),
        r"holds a weight \(model.norm.weight\) in another shape than its config.json says",
    ),
    "codes": (
        lambda weights: weights.update({"lm_head.weight": torch.ones(259, 32, dtype=torch.int8)}),
        r"holds a weight \(lm_head.weight\) as codes",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_is_not_its_model_is_refused(tmp_path, change):
    alter, fault = CHANGES[change]
    folder = rewritten(save_tiny_model("llama", tmp_path / "altered"), alter)
    with pytest.raises(InputError, match=fault) as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_head_that_is_the_embedding_need_not_be_there(tmp_path):
    folder = rewritten(save_tiny_model("llama", tmp_path / "tied"), without("lm_head"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = load_model(folder, device="cpu")
    assert torch.equal(model.W_U, model.W_E.T)


def test_a_model_saved_without_its_head_is_refused(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "headless")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(InputError, match=r"lacks a weight \(lm_head.weight\)"):
        load_model(folder, device="cpu")


def test_settings_of_a_quantiser_are_refused(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "packed")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"are quantised \(gptq\), and hooks need them as numbers"):
        load_model(folder, device="cpu")


def test_what_text_does_not_need_may_be_left_out():
    info = {"missing_keys": set(), "mismatched_keys": set()}
    unneeded = {"vision_tower.layers.0.weight", "model.visual.patch.weight", "mtp.layers.0.norm"}
    check_complete({**info, "unexpected_keys": unneeded}, "some model")
    with pytest.raises(InputError, match=r"holds a weight \(score.weight\)"):
        check_complete({**info, "unexpected_keys": {"score.weight", *unneeded}}, "some model")
