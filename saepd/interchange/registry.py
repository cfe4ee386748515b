"""The formats: who writes and reads each, and what it can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saepd.interchange.control_vectors import (
    read_control_vector,
    write_llama_cpp,
    write_repeng,
)
from saepd.interchange.json_specs import (
    read_svec,
    write_easysteer,
    write_interp_engine,
    write_svec,
    write_transformer_lens,
)
from saepd.interchange.losses import EVERY_TOKEN, Says
from saepd.interchange.neuronpedia import write_neuronpedia
from saepd.interchange.record import SteeringRecord, Vector
from saepd.interchange.tensor_files import (
    read_steering_vectors,
    read_tensors,
    write_steering_vectors,
)
from saepd.interchange.torch_files import write_hotwire, write_lm_eval

_EASYSTEER = frozenset({"every", "all", "prompt", "generated", "answer", "last"})


@dataclass(frozen=True)
class Target:
    """How a format is written.

    Attributes:
        write: Makes the files of one perspective, by name, from its record and their stem.
        use: How its tool is told to use a file; ``{file}`` stands for the first one.
        says: What of a direction it can say.
    """

    write: Callable[[SteeringRecord, str], dict[str, bytes]]
    use: str
    says: Says = EVERY_TOKEN


TARGETS: dict[str, Target] = {
    "llama.cpp": Target(
        write_llama_cpp,
        "llama-server -m MODEL.gguf --control-vector {file}",
        Says(lowest_block=1),
    ),
    "repeng": Target(
        write_repeng,
        "ControlModel(model, vector.directions).set_control(vector) with vector = "
        "ControlVector.import_gguf('{file}')",
    ),
    "steering-vectors": Target(
        write_steering_vectors,
        "SteeringVector({{int(n.split('.')[1]): t for n, t in load_file('{file}').items()}})"
        ".apply(model)",
    ),
    "lm-eval": Target(
        write_lm_eval,
        "lm_eval --model steered --model_args pretrained=MODEL,steer_path={file} --tasks TASK",
    ),
    "neuronpedia": Target(
        write_neuronpedia,
        "POST {file} to /api/vector/new with a key of your own, or open the links",
        Says(latents=True),
    ),
    "easysteer": Target(
        write_easysteer, "--steering-config of the .json beside {file}", Says(_EASYSTEER)
    ),
    "transformer-lens": Target(
        write_transformer_lens,
        "intervention specs of TransformerLens 4: {file}",
        Says(any_site=True),
    ),
    "aisteer360": Target(write_svec, "SteeringVector.load('{file}')"),
    "interp-engine": Target(
        write_interp_engine, "the field steering of a request to its server: {file}"
    ),
    "hotwire": Target(
        write_hotwire, "HOTWIRE_VECTORS={file}, and vllm_xargs of the .request.json beside it"
    ),
}

READERS: dict[str, Callable[[Path], dict[str, Vector]]] = {
    "llama.cpp": read_control_vector,
    "steering-vectors": read_steering_vectors,
    "aisteer360": read_svec,
    "tensors": read_tensors,
}
