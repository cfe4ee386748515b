"""The next token's log-probs of exported vectors, as each Python tool computes them itself.

Every function gives, of each perspective and each prompt, the log-probs of all tokens; it raises
ImportError where its tool is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from parity_steps.setting import Setting

LogProbs = list[list[torch.Tensor]]


def _last(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [model(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in rows]


def repeng(setting: Setting) -> tuple[LogProbs, str]:
    """``ControlVector.import_gguf`` and ``ControlModel.set_control``."""
    # Written for numpy 1, of which it uses this one name.
    np.float_ = np.float64  # type: ignore[attr-defined]
    from repeng import ControlModel, ControlVector  # pyright: ignore[reportMissingImports]

    found = []
    for written in setting.export("repeng"):
        vector = ControlVector.import_gguf(str(written.files[0]))
        model = ControlModel(setting.hf_model(), list(vector.directions))
        model.set_control(vector)
        found.append(_last(model, setting.rows))
    return found, f"repeng {version('repeng')}"


def steering_vectors(setting: Setting) -> tuple[LogProbs, str]:
    """``SteeringVector.apply``, with the three lines that its file is read by."""
    from steering_vectors import SteeringVector  # pyright: ignore[reportMissingImports]

    model, found = setting.hf_model(), []
    for written in setting.export("steering-vectors"):
        tensors = load_file(written.files[0])
        layers = {int(name.split(".")[1]): tensor for name, tensor in tensors.items()}
        with SteeringVector(layers, "decoder_block").apply(model):
            found.append(_last(model, setting.rows))
    return found, f"steering-vectors {version('steering-vectors')}"


def lm_eval(setting: Setting) -> tuple[LogProbs, str]:
    """``--model steered`` of the evaluation harness."""
    from lm_eval.models.hf_steered import SteeredModel  # pyright: ignore[reportMissingImports]

    found = []
    for written in setting.export("lm-eval"):
        steered = SteeredModel(
            pretrained=str(setting.checkpoint),
            steer_path=str(written.files[0]),
            device="cpu",
            dtype="float32",
        )
        with torch.inference_mode():
            found.append(
                [
                    steered._model_call(torch.tensor([row]))[0, -1].log_softmax(-1)
                    for row in setting.rows
                ]
            )
    return found, f"lm-eval {version('lm-eval')}"


def interp_engine(setting: Setting) -> tuple[LogProbs, str]:
    """Its server's own reading of the JSON, and ``steer`` on its eager backend."""
    from interp_engine.model import EagerModel  # pyright: ignore[reportMissingImports]
    from interp_engine.server.schemas import SteeringWire  # pyright: ignore[reportMissingImports]
    from interp_engine.steer import steer  # pyright: ignore[reportMissingImports]

    inner = setting.hf_model()
    model = EagerModel(
        str(setting.checkpoint), hf_model=inner, tokenizer=setting.model.tokenizer, device="cpu"
    )
    found = []
    for written in setting.export("interp-engine"):
        wires = [SteeringWire(**one) for one in json.loads(written.files[0].read_text())]
        specs = [wire.to_spec(int(setting.model.cfg.d_model)) for wire in wires]
        with steer(model, specs):
            found.append(_last(inner, setting.rows))
    return found, f"interp-engine {version('interp-engine')}, eager"


RUNTIMES: dict[str, Callable[[Setting], tuple[LogProbs, str]]] = {
    "repeng": repeng,
    "steering-vectors": steering_vectors,
    "lm-eval": lm_eval,
    "interp-engine": interp_engine,
}


def by_rule(setting: Setting, vectors: list[dict[int, torch.Tensor]]) -> LogProbs:
    """What a tool does by its description: add each row to the output of the block of its number.

    Args:
        setting: What is compared.
        vectors: Of each perspective, what the tool reads out of its file, by block.
    """
    model, found = setting.hf_model(), []
    blocks = model.get_submodule("model.layers")
    for own in vectors:

        def adding(vector: torch.Tensor) -> Callable[..., Any]:
            def add(_module: Any, _args: Any, output: Any) -> Any:
                if isinstance(output, tuple):
                    return (output[0] + vector, *output[1:])
                return output + vector

            return add

        handles = [blocks[i].register_forward_hook(adding(v)) for i, v in own.items()]
        found.append(_last(model, setting.rows))
        for handle in handles:
            handle.remove()
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def easysteer(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: the GGUF that the spec names, at every token."""
    from gguf import GGUFReader

    vectors = []
    for written in setting.export("easysteer"):
        spec = next(path for path in written.files if path.suffix == ".json")
        own: dict[int, torch.Tensor] = {}
        for one in _json(spec)["vectors"]:
            assert one["apply"] == {"prompt": "all", "generation": "all"}
            for tensor in GGUFReader(spec.parent / one["source"]).tensors:
                block = int(tensor.name.removeprefix("direction."))
                own[block] = one["scale"] * torch.tensor(np.array(tensor.data))
        vectors.append(own)
    return by_rule(setting, vectors), "by its description"


def aisteer360(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: one row for each layer, added to that layer's output."""
    vectors = []
    for written in setting.export("aisteer360"):
        read = _json(written.files[0])["directions"]
        vectors.append({int(layer): torch.tensor(rows[0]) for layer, rows in read.items()})
    return by_rule(setting, vectors), "by its description (not on PyPI)"


def transformer_lens(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: each value added at the hook of its name."""
    vectors = []
    for written in setting.export("transformer-lens"):
        specs = _json(written.files[0])
        vectors.append(
            {int(hook.split(".")[1]): torch.tensor(s["value"]) for hook, s in specs.items()}
        )
    return by_rule(setting, vectors), "by its description (4.x cannot be beside SAELens)"


def hotwire(setting: Setting) -> tuple[LogProbs, str]:
    """Its own loader where it is installed; adding needs vLLM and a GPU, and is by description."""
    vectors, runtime = [], "by its description"
    for written in setting.export("hotwire"):
        path, asked = written.files
        name, rows = path.stem, torch.load(path, weights_only=True)
        try:
            from hotwire._state import SteerState  # pyright: ignore[reportMissingImports]

            state = SteerState(*rows.shape, 1, torch.device("cpu"), torch.float32, 4)
            state.load_store(str(path))
            rows = state.store[name][0]
            runtime = f"hotwire-vllm {version('hotwire-vllm')} reads it; added by its description"
        except ImportError:
            pass
        request = json.loads(_json(asked)["hotwire"])
        vectors.append({one["layer"]: one["scale"] * rows[one["layer"]] for one in request})
    return by_rule(setting, vectors), runtime


def neuronpedia(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: the form's vector at its strength, added to the layer it names."""
    vectors = []
    for written in setting.export("neuronpedia"):
        forms = _json(written.files[0])
        for form in forms:
            assert form["hookType"] == "hook_resid_post" and len(form["vector"]) <= 24576
        vectors.append(
            {
                form["layerNumber"]: form["vectorDefaultSteerStrength"]
                * torch.tensor(form["vector"])
                for form in forms
            }
        )
    return by_rule(setting, vectors), "by its description (a service; nothing was sent)"


RULES: dict[str, Callable[[Setting], tuple[LogProbs, str]]] = {
    "easysteer": easysteer,
    "aisteer360": aisteer360,
    "transformer-lens": transformer_lens,
    "hotwire": hotwire,
    "neuronpedia": neuronpedia,
}
