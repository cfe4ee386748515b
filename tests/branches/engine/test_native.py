import pytest
import torch
from tiny import ARCHITECTURES, save_tiny_model

from saepd.branches.engine import native
from saepd.branches.run import branch
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.models.load import load_model

PROMPTS = ["Is it so? Say:: yes", "a::b"]


def unwrapped_parts(model):
    with native.native_modules(model):
        return sum("forward" in part.__dict__ for part, _ in native._parts(model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_runs_unwrapped_and_is_left_as_it_was(tiny_bridge, architecture):
    model = tiny_bridge(architecture)
    native.try_native(model)
    assert unwrapped_parts(model) > 30
    assert not any("forward" in part.__dict__ for part, _ in native._parts(model))


def test_what_is_hooked_stays_wrapped(llama):
    native.try_native(llama)
    before = unwrapped_parts(llama)
    seen = []
    handle = llama.blocks[2].attn.hook_pattern.register_forward_hook(
        lambda _m, _a, pattern: seen.append(pattern.shape)
    )
    try:
        # The attention, and the block around it.
        assert unwrapped_parts(llama) == before - 2
        branch(
            llama, PROMPTS, [Direction("d", "blocks.1.hook_resid_post", AddVector(torch.ones(32)))]
        )
    finally:
        handle.remove()
    assert seen


def test_modules_that_differ_unwrapped_stay_wrapped(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path / "model"), device="cpu")
    attention = model.blocks[1].attn.original_component
    right = attention.forward
    # The bridge computes attention itself, so only the unwrapped module goes wrong.
    attention.forward = lambda *a, **k: (2 * right(*a, **k)[0], None)
    native.try_native(model)
    assert unwrapped_parts(model) == 0


def test_modules_that_cannot_run_unwrapped_stay_wrapped(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path / "model"), device="cpu")
    model.blocks[1].attn.original_component.forward = None
    native.try_native(model)
    assert unwrapped_parts(model) == 0
