"""Where weights go: devices, memory, quantisation, and maps over several devices."""

import json
from types import SimpleNamespace

import psutil
import pytest
import torch
import transformers
from tiny import D_MODEL, SITE, save_tiny_model

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.models.load import load_model
from saepd.models.placing import (
    check_not_offloaded,
    check_room,
    devices_of,
    shapes_by_config,
    shapes_in,
    weights_bytes,
)

PROMPTS = ["Is it so?", "Well then, is that what it is?"]
CPU = torch.device("cpu")


def steered():
    return Direction("x", SITE, AddVector(torch.ones(D_MODEL)), "all")


def close(left, right, tolerance=1e-4):
    assert (left - right).abs().max() < tolerance


# --- memory ---


def test_headers_and_configuration_tell_the_same_weights(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    by_config = shapes_by_config(config, trust_remote_code=False)
    assert shapes_in(folder) == by_config
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    assert weights_bytes(by_config, torch.float32, "none") == held
    assert weights_bytes(by_config, torch.bfloat16, "none") == held / 2


def test_an_architecture_that_cannot_be_built_without_memory_is_not_guessed_at(tmp_path):
    assert shapes_by_config(object(), trust_remote_code=False) == {}
    assert shapes_in(tmp_path) == {}
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    assert shapes_in(tmp_path) == {}
    check_room("m", {}, torch.float32, "none", [CPU])


def test_what_memory_has_no_room_for_is_refused_with_what_would_fit():
    free = psutil.virtual_memory().available
    # Three times what is free as float32, once and a half as bfloat16.
    shapes = {"layers.0.weight": (1024, int(3 * free / 4 / 1024))}
    with pytest.raises(InputError, match=r"take \d+\.\d GB in float32, and .* free on cpu") as said:
        check_room("huge", shapes, torch.float32, "none", [CPU])
    told = str(said.value)
    assert "use quantize 4bit or quantize 8bit or a smaller model" in told
    assert "bfloat16" not in told
    check_room("huge", shapes, torch.float32, "4bit", [CPU])
    # Embeddings are kept as they are.
    kept = {"model.embed_tokens.weight": shapes["layers.0.weight"]}
    with pytest.raises(InputError, match=r"in 4bit.*: use a smaller model$"):
        check_room("huge", kept, torch.float32, "4bit", [CPU])


def test_a_model_is_refused_before_any_weight_of_it_is_read(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    target = tmp_path / "vast"
    target.mkdir()
    # 200 blocks of a width that no machine holds; there are no weights here at all.
    config |= {"hidden_size": 2**17, "intermediate_size": 2**19, "num_hidden_layers": 200}
    config |= {"num_attention_heads": 1024, "num_key_value_heads": 1024, "head_dim": 128}
    (target / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"vast take \d{5,}\.\d GB in bfloat16"):
        load_model(target, device="cpu", dtype="bfloat16")


# --- maps ---


def test_a_map_of_one_device_is_that_device(folder):
    plain = load_model(folder, device="cpu")
    parts = ("model.embed_tokens", "model.rotary_emb", "model.layers", "model.norm", "lm_head")
    for device_map in ("auto", "cpu", {"": "cpu"}, dict.fromkeys(parts, "cpu")):
        if device_map == "auto" and torch.cuda.is_available():
            continue
        mapped = load_model(folder, device_map=device_map)
        close(branch(mapped, PROMPTS, [steered()]), branch(plain, PROMPTS, [steered()]))
        assert mapped.cfg.device == "cpu"


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_model_that_accelerate_has_split_is_run_through_its_hooks(
    tiny_bridge, tmp_path, monkeypatch, architecture
):
    # One device stands for several: every part gets the hook that would move its inputs there.
    import accelerate

    read, found = transformers.AutoModelForCausalLM.from_pretrained, []

    def split(*args, **settings):
        model, info = read(*args, **settings)
        stem, layers = ("model", "layers") if architecture == "llama" else ("transformer", "h")
        inside = model.get_submodule(stem)
        parts = [f"{stem}.{name}" for name, _ in inside.named_children() if name != layers]
        parts += [f"{stem}.{layers}.{i}" for i in range(len(getattr(inside, layers)))]
        accelerate.dispatch_model(
            model, dict.fromkeys([*parts, "lm_head"], "cpu"), force_hooks=True
        )
        found.append([n for n, part in model.named_modules() if hasattr(part, "_hf_hook")])
        return model, info

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", split)
    model = load_model(save_tiny_model(architecture, tmp_path / architecture), device_map="cpu")
    assert len(found[0]) > 8
    got, edit = branch(model, PROMPTS, [steered()]), steered()
    close(got, branch(tiny_bridge(architecture), PROMPTS, [edit]))
    for row, prompt in enumerate(PROMPTS):
        with edit.apply(model), torch.inference_mode():
            logits = model(model.tokenizer(prompt, return_tensors="pt").input_ids)
        close(logits[0, -1].log_softmax(-1), got[row, 1])


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({"model": "cpu", "lm_head": "disk"}, "keeps some weights on the CPU or on disk"),
        ({"model": "cpu", "lm_head": "cuda:0"}, "keeps some weights on the CPU or on disk"),
        ({"": "disk"}, "keeps some weights on the CPU or on disk"),
        ({"": 99}, "there is no device 'cuda:99' on this machine"),
        ({"": "gpu"}, "unknown device 'gpu'"),
        ("by hand", "unknown device 'by hand'"),
        ({}, "the device_map is empty"),
    ],
)
def test_maps_that_cannot_run_are_refused_before_anything_is_loaded(tmp_path, device_map, said):
    with pytest.raises(InputError, match=said):
        load_model(tmp_path / "never looked at", device_map=device_map)


def test_devices_of_a_map_are_each_named_once():
    assert devices_of({"a": "cpu", "b": "cpu"}) == [CPU]
    assert devices_of("cpu") == [CPU]


def test_what_transformers_kept_off_the_devices_is_refused():
    split = SimpleNamespace(hf_device_map={"embed": 0, "layers.0": 1, "layers.1": "cpu"})
    with pytest.raises(InputError, match="no room for 1 of the model's 3 parts"):
        check_not_offloaded(split)
    check_not_offloaded(SimpleNamespace(hf_device_map={"embed": 0, "layers": "cuda:1"}))
    check_not_offloaded(SimpleNamespace())


# --- precision ---


def test_bfloat16_steers_as_float32_does(folder):
    full, half = (
        load_model(folder, device="cpu"),
        load_model(folder, device="cpu", dtype="bfloat16"),
    )
    assert {p.dtype for p in half.original_model.parameters()} == {torch.bfloat16}
    wanted, got = (branch(model, PROMPTS, [steered()]) for model in (full, half))
    assert (wanted[:, 1] - wanted[:, 0]).abs().max() > 1
    close(got, wanted, 0.5)
    close(got, branch(half, PROMPTS, [steered()], reference=True), 0.25)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantised_weights_steer_where_they_lie(tmp_path, architecture, quantize):
    pytest.importorskip("bitsandbytes")
    folder = save_tiny_model(architecture, tmp_path / architecture)
    model = load_model(folder, device="cpu", quantize=quantize)
    kinds = {type(p).__name__ for p in model.original_model.parameters()}
    assert {"4bit": "Params4bit", "8bit": "Int8Params"}[quantize] in kinds
    got = branch(model, PROMPTS, [steered()])
    # In 8 bits a number is rounded by the others that are computed beside it.
    tolerance = 1e-4 if quantize == "4bit" else 0.05
    close(got, branch(model, PROMPTS, [steered()], reference=True), tolerance)
    assert (got[:, 1] - got[:, 0]).abs().max() > 1
    whole = load_model(folder, device="cpu")
    assert 1e-3 < (got - branch(whole, PROMPTS, [steered()])).abs().max() < 4
