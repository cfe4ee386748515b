"""What scripts/parity.py does in each runtime, on a tiny model; skipped where a tool is missing."""

import pytest
import torch
from parity_steps import runtimes
from parity_steps.llama_cpp import float32_copy
from parity_steps.setting import Setting
from tiny import D_MODEL, save_tiny_model

import saepd
from saepd.directions.direction import Direction
from saepd.models.load import load_model
from saepd.models.tokens import prompt_ids

TOLERANCE = 1e-4
PROMPTS = ["So it goes", "Once"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    checkpoint = save_tiny_model("llama", folder / "model")
    model = load_model(checkpoint, device="cpu")
    generator = torch.Generator().manual_seed(0)

    def direction(name, block):
        edit = saepd.AddVector(torch.randn(D_MODEL, generator=generator))
        return Direction(name, f"blocks.{block}.hook_resid_post", edit, "every")

    directions = [direction("north", 1), direction("south", 1), direction("south", 2)]
    return Setting(
        model,
        checkpoint,
        directions,
        PROMPTS,
        [prompt_ids(model.tokenizer, prompt) for prompt in PROMPTS],
        [(0, 1)] * len(PROMPTS),
        torch.cat([saepd.branch(model, [p], [directions[0], directions[1:]]) for p in PROMPTS]),
        folder / "out",
    )


@pytest.mark.parametrize("name", [*runtimes.RUNTIMES, *runtimes.RULES])
def test_exported_vectors_do_elsewhere_what_they_do_here(setting, name):
    run = runtimes.RUNTIMES.get(name) or runtimes.RULES[name]
    try:
        log_probs, runtime = run(setting)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    assert runtime
    assert float((setting.log_probs[:, 1:] - setting.log_probs[:, :1]).abs().max()) > 0.1
    assert setting.furthest(log_probs) < TOLERANCE


def test_a_copy_in_float32_holds_the_same_numbers(tmp_path):
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    writer.add_block_count(1)
    writer.add_array("some.words", ["a", "b"])
    weights = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q4_1
    packed = gguf.quants.quantize(weights, kind)
    writer.add_tensor("w", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(float32_copy(tmp_path / "small.gguf", tmp_path / "copy.gguf"))
    [tensor] = reader.tensors
    assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(tensor.data, gguf.quants.dequantize(packed, kind))
    assert reader.fields["some.words"].contents() == ["a", "b"]
    assert reader.fields["llama.block_count"].contents() == 1
