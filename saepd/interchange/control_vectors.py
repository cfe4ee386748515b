"""Control vectors of llama.cpp and repeng: GGUF files with one tensor ``direction.N`` a block.

``direction.N`` is added to the output of block N, counted from 0 (llama.cpp,
``common_control_vector_load_one`` and ``llama_adapter_cvec``; repeng, ``ControlModel``). llama.cpp
never adds anything to block 0 and rejects a file with any other tensor.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from saepd.common.errors import InputError
from saepd.interchange.record import SteeringRecord, Vector
from saepd.interchange.small_gguf import read_small_gguf

_ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(\d{1,6})")


def write_llama_cpp(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """The file that ``--control-vector`` takes."""
    return {f"{stem}.gguf": control_vector(record, lowest_block=1)}


def write_repeng(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """The file that ``ControlVector.import_gguf`` takes."""
    return {f"{stem}.gguf": control_vector(record, lowest_block=0)}


def control_vector(record: SteeringRecord, lowest_block: int) -> bytes:
    """A control vector with a direction for each block from the lowest on that is written to."""
    from gguf import GGUFWriter

    vectors = {block: v for block, v in record.by_block().items() if block >= lowest_block}
    # The library writes to a path only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.gguf"
        writer = GGUFWriter(path, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", record.model.kind)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
        for block, vector in vectors.items():
            writer.add_tensor(f"direction.{block}", np.ascontiguousarray(vector))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def read_control_vector(path: Path) -> dict[str, Vector]:
    """The vectors of a control vector, by the name of the site that each is added at.

    Raises:
        InputError: a file that is none, or one that llama.cpp would not take.
    """
    fields, tensors = read_small_gguf(path)
    architecture = fields.get("general.architecture")
    if architecture != _ARCHITECTURE:
        raise InputError(
            f"{path} is a GGUF of {architecture!r}, and no control vector: name a file whose "
            f"general.architecture is {_ARCHITECTURE}"
        )
    vectors: dict[str, Vector] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or tensor.ndim != 1:
            raise InputError(
                f"{path} has a tensor {name[:60]!r} of shape {tensor.shape}: those of a control "
                "vector are direction.N, one row of numbers each"
            )
        vectors[f"blocks.{int(match[1])}.hook_resid_post"] = tensor
    if not vectors:
        raise InputError(f"{path} holds no direction: a control vector has one for each block")
    return vectors
