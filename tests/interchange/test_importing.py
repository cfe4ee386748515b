import pytest
import torch
from safetensors.torch import save_file
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.interchange.importing import import_direction


@pytest.fixture
def saved(tmp_path):
    def save(tensors):
        path = tmp_path / "north.safetensors"
        save_file(tensors, path)
        return path

    return save


@pytest.mark.parametrize(
    "name", ["blocks.2.hook_resid_post", "layers.2", "direction.2", "2", "vec_layer_2", "layer2"]
)
def test_a_tensor_is_named_by_its_layer(saved, llama, name):
    one = import_direction(saved({name: torch.ones(D_MODEL)}), "tensors", llama)
    assert (one.perspective, one.hook_name) == ("north", "blocks.2.hook_resid_post")
    assert (one.positions, one.coefficient) == ("every", 1.0)


def test_a_vector_without_a_layer_needs_a_site(saved):
    path = saved({"vector": torch.ones(1, D_MODEL).bfloat16().float()})
    with pytest.raises(InputError, match="does not say where its vector belongs"):
        import_direction(path, "tensors")
    one = import_direction(
        path,
        "tensors",
        hook_name="blocks.3.hook_resid_post",
        perspective="mine",
        positions="answer",
        coefficient=2.0,
    )
    assert (one.perspective, one.positions, one.coefficient) == ("mine", "answer", 2.0)
    assert torch.equal(one.constant, 2 * torch.ones(D_MODEL))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("from_", ["tensors", "steering-vectors"])
def test_vectors_of_every_precision_are_read(saved, from_, dtype):
    kept = torch.randn(D_MODEL).to(dtype)
    one = import_direction(saved({"layer_activations.1": kept}), from_)
    assert torch.equal(one.constant, kept.float())


def test_rows_are_layers_and_rows_of_zeros_are_none(saved):
    rows = torch.zeros(4, D_MODEL)
    rows[3] = 1
    one = import_direction(saved({"rows": rows}), "tensors")
    assert one.hook_name == "blocks.3.hook_resid_post"
    with pytest.raises(InputError, match="nothing but zeros"):
        import_direction(saved({"rows": torch.zeros(4, D_MODEL)}), "tensors")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layers.1": torch.ones(3)}, "has width 3"),
        ({"layers.9": torch.ones(D_MODEL)}, "has no site 'blocks.9.hook_resid_post'"),
        ({"layers.1": torch.full((D_MODEL,), torch.nan)}, "must be finite"),
        ({"layers.1": torch.ones(D_MODEL, dtype=torch.long)}, "one row of fractions"),
        ({"layers.1": torch.ones(2, 3, D_MODEL)}, "one row of fractions"),
        ({"a": torch.ones(D_MODEL), "b": torch.ones(D_MODEL)}, "names no layer"),
        ({"a.1": torch.ones(D_MODEL), "b.1": torch.ones(D_MODEL)}, "two tensors for blocks.1"),
        ({"blocks.1.hook_q": torch.ones(D_MODEL)}, "has no site|edits are not made"),
    ],
)
def test_tensors_that_are_no_vectors_of_the_model_are_refused(saved, llama, tensors, message):
    with pytest.raises(InputError, match=message):
        import_direction(saved(tensors), "tensors", llama)


def test_a_site_chooses_among_several_vectors(saved):
    path = saved({f"layers.{i}": torch.full((D_MODEL,), float(i)) for i in (1, 2)})
    with pytest.raises(InputError, match=r"holds vectors of 2 sites and none of blocks\.3"):
        import_direction(path, "tensors", hook_name="blocks.3.hook_resid_post")
    one = import_direction(path, "tensors", hook_name="blocks.2.hook_resid_post")
    assert torch.equal(one.constant, torch.full((D_MODEL,), 2.0))


@pytest.mark.parametrize("from_", ["tensors", "steering-vectors"])
@pytest.mark.parametrize("payload", [b"", b"\0" * 99, b"\x80\x04K\x01.", b"\xff" * 8 + b"{}"])
def test_files_that_are_no_safetensors_are_refused(tmp_path, payload, from_):
    path = tmp_path / "v.safetensors"
    path.write_bytes(payload)
    with pytest.raises(InputError, match="is no safetensors file"):
        import_direction(path, from_)


def test_names_of_another_form_are_no_steering_vectors(saved):
    with pytest.raises(InputError, match="read the file as tensors"):
        import_direction(saved({"layers.1": torch.ones(4)}), "steering-vectors")
    with pytest.raises(InputError, match="unknown format 'pickle'"):
        import_direction(saved({"layers.1": torch.ones(4)}), "pickle")
