"""Vectors in safetensors: those of steering-vectors, and whatever else is one vector a layer.

steering-vectors keeps nothing on disk of its own. What is written here takes three lines to read::

    with safe_open("left.safetensors", "pt") as file:
        layers = {int(n.split(".")[1]): file.get_tensor(n) for n in file.keys()}
    vector = SteeringVector(layers, layer_type="decoder_block")
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load
from torch import Tensor

from saepd.common.errors import InputError
from saepd.interchange.reading import read_bounded
from saepd.interchange.record import SteeringRecord, Vector

_LAYER = re.compile(r"layer_activations\.(\d{1,6})")
# The forms in which others write a layer's number into a name.
_NUMBERED = re.compile(r"(?:.*[._])?(?:layer)?(\d{1,6})", re.DOTALL)
_HOOK = re.compile(r"blocks\.\d{1,6}\.[\w.]+")


def write_steering_vectors(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """One tensor ``layer_activations.N`` a layer, added to the output of that layer."""
    tensors = {f"layer_activations.{block}": v for block, v in record.by_block().items()}
    about = {"layer_type": "decoder_block", "perspective": record.perspective}
    return {f"{stem}.safetensors": save(tensors, metadata=about)}


def read_steering_vectors(path: Path) -> dict[str, Vector]:
    """The vectors of such a file, by the name of the site that each is added at.

    Raises:
        InputError: a file of another form.
    """
    vectors = {}
    for name, tensor in _tensors(path).items():
        match = _LAYER.fullmatch(name)
        if match is None:
            raise InputError(
                f"{path} has a tensor {name[:60]!r}: those of a steering vector are "
                "layer_activations.N; read the file as tensors"
            )
        vectors[f"blocks.{int(match[1])}.hook_resid_post"] = _row(path, name, tensor)
    return vectors


def read_tensors(path: Path) -> dict[str, Vector]:
    """Vectors by the site that a tensor's name or its row says; an empty name where none does.

    A tensor is named like a site, ends in a layer's number, or has one row for each layer.

    Raises:
        InputError: a file that cannot be read, or tensors whose layer cannot be told.
    """
    tensors = _tensors(path)
    if len(tensors) == 1:
        [(name, tensor)] = tensors.items()
        if tensor.ndim == 2 and len(tensor) > 1:
            # Rows of zeros are layers that nothing is added to.
            rows = {i: _row(path, name, row) for i, row in enumerate(tensor)}
            return {f"blocks.{i}.hook_resid_post": row for i, row in rows.items() if row.any()}
        if not (_HOOK.fullmatch(name) or _NUMBERED.fullmatch(name)):
            return {"": _row(path, name, tensor)}
    vectors: dict[str, Vector] = {}
    for name, tensor in tensors.items():
        match = _NUMBERED.fullmatch(name)
        if _HOOK.fullmatch(name):
            site = name
        elif match is not None:
            site = f"blocks.{int(match[1])}.hook_resid_post"
        else:
            raise InputError(
                f"{path} has a tensor {name[:60]!r}, which names no layer: name tensors by their "
                "sites, such as blocks.15.hook_resid_post"
            )
        if site in vectors:
            raise InputError(f"{path} has two tensors for {site}: give one vector for each site")
        vectors[site] = _row(path, name, tensor)
    return vectors


def _tensors(path: Path) -> dict[str, Tensor]:
    # As torch has them: numpy has no bfloat16, in which most vectors are kept.
    payload = read_bounded(path)
    try:
        tensors = load(payload)
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file of vectors: {error}") from error
    if not tensors:
        raise InputError(f"{path} holds no tensors: give at least one vector")
    # The library gives them in no order.
    return dict(sorted(tensors.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> tuple[int, str]:
    """Where a name stands among others: by the first number in it."""
    number = re.search(r"\d{1,6}", name)
    return (int(number[0]) if number else -1, name)


def _row(path: Path, name: str, tensor: Tensor) -> Vector:
    flat = tensor[0] if tensor.ndim == 2 and len(tensor) == 1 else tensor
    if flat.ndim != 1 or not flat.is_floating_point():
        kind, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        raise InputError(
            f"{path}: the tensor {name[:60]!r} is of {kind} and shape {shape}: a vector is one row "
            "of fractions"
        )
    return flat.float().numpy()
