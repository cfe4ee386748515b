import pytest
import torch
from safetensors.torch import save_file

from saepd.common.errors import InputError
from saepd.directions.vector_file import read_vector

VECTOR = torch.randn(6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_a_single_vector_needs_no_name(path, dtype, shape):
    save_file({"any": VECTOR.to(dtype).reshape(shape)}, path)
    found = read_vector(path)
    assert found.dtype == torch.float32
    assert torch.equal(found, VECTOR.to(dtype).float())


def test_one_of_several_is_named(path):
    save_file({"a": VECTOR, "b": -VECTOR}, path)
    assert torch.equal(read_vector(path, "b"), -VECTOR)
    with pytest.raises(InputError, match=r"holds 2 tensors \(a, b\): name one vector of it"):
        read_vector(path)
    with pytest.raises(InputError, match="holds no tensor 'c': use one of a, b"):
        read_vector(path, "c")


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(2, 3), r"torch.float32 of shape \[2, 3\]"),
        (torch.zeros(3, dtype=torch.int32), r"torch.int32 of shape \[3\]"),
        (torch.tensor(1.0), r"torch.float32 of shape \[\]"),
    ],
)
def test_what_is_no_vector_is_refused(path, tensor, kind):
    save_file({"x": tensor}, path)
    with pytest.raises(InputError, match=f"tensor 'x' of .* is {kind}: it must be one row"):
        read_vector(path)


def test_what_is_no_safetensors_is_refused(path, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*as safetensors"):
        read_vector(path)
    path.write_bytes(b"\x80\x04 no header")
    with pytest.raises(InputError, match=r"cannot read .*as safetensors"):
        read_vector(path)
    with pytest.raises(InputError, match=r"cannot read .*as safetensors"):
        read_vector(tmp_path)
    save_file({}, path)
    with pytest.raises(InputError, match="holds no tensor: name one"):
        read_vector(path)


def test_what_is_no_path_is_refused():
    with pytest.raises(InputError, match="5 is no safetensors file: give its path"):
        read_vector(5)
