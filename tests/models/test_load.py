import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tiny import ARCHITECTURES, save_tiny_model, tiny_tokenizer

from saepd.common.errors import InputError
from saepd.models.load import (
    load_model,
)


def copied(folder, target):
    return Path(shutil.copytree(folder, target))


# --- folders ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_is_run_as_transformers_runs_it(tmp_path, architecture):
    folder = save_tiny_model(architecture, tmp_path / architecture)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    bridge = load_model(folder, device="cpu")
    tokens = torch.tensor([bridge.tokenizer("Is it so, and if not, why?").input_ids])
    with torch.no_grad():
        expected = plain(tokens).logits
    torch.testing.assert_close(bridge(tokens), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1
    assert bridge.cfg.model_name == architecture
    assert not bridge.training
    assert not any(p.requires_grad for p in bridge.original_model.parameters())
    assert "blocks.3.hook_resid_post" in bridge.hook_dict


def test_a_tokenizer_without_padding_pads_with_its_end(folder, tmp_path):
    target = copied(folder, tmp_path / "unpadded")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(target)
    loaded = load_model(target, device="cpu").tokenizer
    assert loaded.pad_token == loaded.eos_token == "<|end|>"


def test_a_home_folder_may_be_written_with_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/some-model", device="cpu").cfg.model_name == "some-model"


# --- what cannot be loaded ---


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGES = {
    "truncated weights": truncate,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half a configuration": lambda folder: (folder / "config.json").write_text('{"model_type": '),
    "another kind of model": lambda folder: (folder / "config.json").write_text(
        '{"model_type": "no-such-kind"}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused_in_one_line(folder, tmp_path, damage):
    target = copied(folder, tmp_path / "damaged")
    DAMAGES[damage](target)
    with pytest.raises(InputError, match=r"damaged.*: \S") as caught:
        load_model(target, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./none", "a/b/none"])
def test_missing_folders_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no such model folder: {Path(name)}"):
        load_model(name)
    with pytest.raises(InputError, match="no such model folder"):
        load_model(tmp_path / "none")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json: a model folder needs one"):
        load_model(tmp_path)


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_that_would_not_be_applied_is_refused(folder, tmp_path, beside):
    target = copied(folder, tmp_path / "tuned")
    (target / "adapter_config.json").write_text("{}")
    assert load_model(target, device="cpu").cfg.model_name == "tuned"
    (target / "adapter_model.safetensors").write_bytes(b"")
    if not beside:
        (target / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds an adapter .*: merge it into its model"):
        load_model(target, device="cpu")


def test_options_that_make_no_sense_are_refused(folder):
    with pytest.raises(InputError, match="unknown dtype 'float12': use one of float32, bfloat16"):
        load_model(folder, dtype="float12")
    with pytest.raises(InputError, match="device and device_map exclude each other"):
        load_model(folder, device="cpu", device_map="auto")
    with pytest.raises(InputError, match="there is no device 'cuda:99' on this machine"):
        load_model(folder, device="cuda:99")
    with pytest.raises(InputError, match="unknown device 'gpu': use cpu, cuda, cuda:1 or mps"):
        load_model(folder, device="gpu")
    with pytest.raises(InputError, match="unknown quantisation '5bit': use none, 4bit or 8bit"):
        load_model(folder, quantize="5bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(InputError, match="needs bitsandbytes: run `pip install bitsandbytes`"):
            load_model(folder, quantize="4bit")


def test_nothing_is_installed_while_a_model_is_loaded(folder, monkeypatch):
    """Of a model that sees pictures TransformerLens asks pip for what it lacks."""
    from transformer_lens.model_bridge import TransformerBridge

    boot, asked = TransformerBridge.boot_transformers, []

    def install(*args, **settings):
        asked.append([os.environ.get(name) for name in ("PIP_NO_INDEX", "UV_OFFLINE")])
        return boot(*args, **settings)

    monkeypatch.setattr(TransformerBridge, "boot_transformers", install)
    monkeypatch.setenv("UV_OFFLINE", "0")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    load_model(folder, device="cpu")
    assert asked == [["1", "1"]]
    assert os.environ["UV_OFFLINE"] == "0"
    assert "PIP_NO_INDEX" not in os.environ
