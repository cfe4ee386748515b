"""A dense vector out of a safetensors file, such as another tool wrote."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saepd.common.checks import check_path
from saepd.common.errors import InputError, first_line
from saepd.common.messages import nearest, shortlist


def read_vector(path: str | Path, name: str | None = None) -> Float[Tensor, " d_model"]:
    """The vector that a safetensors file holds.

    A tensor of shape [1, d_model] counts as one vector.

    Args:
        path: Path of the safetensors file.
        name: Name of the tensor; None where the file holds a single one.

    Returns:
        The vector in float32.

    Raises:
        InputError: no path, a file that cannot be read, no such tensor, several without a name, or
            one that is no vector of numbers.
    """
    check_path("safetensors file", path)
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            chosen = _chosen(path, names, name)
            tensor = file.get_tensor(chosen)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read {path} as safetensors ({first_line(error)}): save the vector with "
            "safetensors.torch.save_file"
        ) from error
    if tensor.ndim == 2 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 1 or not tensor.is_floating_point():
        raise InputError(
            f"tensor {chosen!r} of {path} is {tensor.dtype} of shape {list(tensor.shape)}: it must "
            "be one row of floating-point numbers"
        )
    return tensor.float()


def _chosen(path: Path, names: list[str], name: str | None) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        held = f"{len(names)} tensors ({shortlist(names)})" if names else "no tensor"
        raise InputError(f"{path} holds {held}: name one vector of it")
    if name not in names:
        raise InputError(f"{path} holds no tensor {name!r}: {nearest(name, names)}")
    return name
