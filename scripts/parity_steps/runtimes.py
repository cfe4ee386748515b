"""The next token's log-probs of exported vectors, as each Python tool computes them itself.

Every function gives, of each perspective and each prompt, the log-probs of all tokens; it raises
ImportError where its tool is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
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

    log_probs = []
    for written in setting.export("repeng"):
        vector = ControlVector.import_gguf(str(written.files[0]))
        model = ControlModel(setting.hf_model(), list(vector.directions))
        model.set_control(vector)
        log_probs.append(_last(model, setting.rows))
    return log_probs, f"repeng {version('repeng')}"


def steering_vectors(setting: Setting) -> tuple[LogProbs, str]:
    """``SteeringVector.apply``, with the three lines that its file is read by."""
    from steering_vectors import SteeringVector  # pyright: ignore[reportMissingImports]

    model, log_probs = setting.hf_model(), []
    for written in setting.export("steering-vectors"):
        tensors = load_file(written.files[0])
        layers = {int(name.split(".")[1]): tensor for name, tensor in tensors.items()}
        with SteeringVector(layers, "decoder_block").apply(model):
            log_probs.append(_last(model, setting.rows))
    return log_probs, f"steering-vectors {version('steering-vectors')}"


def lm_eval(setting: Setting) -> tuple[LogProbs, str]:
    """``--model steered`` of the evaluation harness."""
    from lm_eval.models.hf_steered import SteeredModel  # pyright: ignore[reportMissingImports]

    log_probs = []
    for written in setting.export("lm-eval"):
        steered = SteeredModel(
            pretrained=str(setting.checkpoint),
            steer_path=str(written.files[0]),
            device="cpu",
            dtype="float32",
        )
        with torch.inference_mode():
            log_probs.append(
                [
                    steered._model_call(torch.tensor([row]))[0, -1].log_softmax(-1)
                    for row in setting.rows
                ]
            )
    return log_probs, f"lm-eval {version('lm-eval')}"


def interp_engine(setting: Setting) -> tuple[LogProbs, str]:
    """Its server's own reading of the JSON, and ``steer`` on its eager backend."""
    from interp_engine.model import EagerModel  # pyright: ignore[reportMissingImports]
    from interp_engine.server.schemas import SteeringWire  # pyright: ignore[reportMissingImports]
    from interp_engine.steer import steer  # pyright: ignore[reportMissingImports]

    inner = setting.hf_model()
    model = EagerModel(
        str(setting.checkpoint), hf_model=inner, tokenizer=setting.model.tokenizer, device="cpu"
    )
    log_probs = []
    for written in setting.export("interp-engine"):
        wires = [SteeringWire(**one) for one in json.loads(written.files[0].read_text())]
        specs = [wire.to_spec(int(setting.model.cfg.d_model)) for wire in wires]
        with steer(model, specs):
            log_probs.append(_last(inner, setting.rows))
    return log_probs, f"interp-engine {version('interp-engine')}, eager"


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
    return by_edits(
        setting, [{i: partial(torch.add, v) for i, v in by_block.items()} for by_block in vectors]
    )


def by_edits(
    setting: Setting, edits: list[dict[int, Callable[[torch.Tensor], torch.Tensor]]]
) -> LogProbs:
    """Let a tool's own functions edit the outputs of blocks.

    Args:
        setting: What is compared.
        edits: Of each perspective, what is done to a block's output, by block.
    """
    model, log_probs = setting.hf_model(), []
    blocks = model.get_submodule("model.layers")
    for by_block in edits:

        def editing(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
            def after(_module: Any, _args: Any, output: Any) -> Any:
                if isinstance(output, tuple):
                    return (edit(output[0]), *output[1:])
                return edit(output)

            return after

        handles = [blocks[i].register_forward_hook(editing(e)) for i, e in by_block.items()]
        log_probs.append(_last(model, setting.rows))
        for handle in handles:
            handle.remove()
    return log_probs


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def easysteer(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: the GGUF that the spec names, at every token."""
    from gguf import GGUFReader

    vectors = []
    for written in setting.export("easysteer"):
        spec = next(path for path in written.files if path.suffix == ".json")
        by_block: dict[int, torch.Tensor] = {}
        for one in _json(spec)["vectors"]:
            assert one["apply"] == {"prompt": "all", "generation": "all"}
            for tensor in GGUFReader(spec.parent / one["source"]).tensors:
                block = int(tensor.name.removeprefix("direction."))
                by_block[block] = one["scale"] * torch.tensor(np.array(tensor.data))
        vectors.append(by_block)
    return by_rule(setting, vectors), "by its description"


def aisteer360(setting: Setting) -> tuple[LogProbs, str]:
    """By its description: one row for each layer, added to that layer's output."""
    vectors = []
    for written in setting.export("aisteer360"):
        read = _json(written.files[0])["directions"]
        vectors.append({int(layer): torch.tensor(rows[0]) for layer, rows in read.items()})
    return by_rule(setting, vectors), "by its description (not on PyPI)"


def transformer_lens(setting: Setting) -> tuple[LogProbs, str]:
    """Its own bridge and specs, of the folder that TRANSFORMER_LENS_4 names; else by description:
    each value added at the hook of its name.
    """
    perspectives = [_json(w.files[0]) for w in setting.export("transformer-lens")]
    if folder := os.environ.get("TRANSFORMER_LENS_4"):
        return _in_transformer_lens_4(setting, perspectives, folder)
    vectors = [
        {int(hook.split(".")[1]): torch.tensor(s["value"]) for hook, s in specs.items()}
        for specs in perspectives
    ]
    return by_rule(setting, vectors), "by its description (4.x cannot be beside SAELens)"


def _in_transformer_lens_4(
    setting: Setting, perspectives: list[dict[str, Any]], folder: str
) -> tuple[LogProbs, str]:
    out = setting.folder / "transformer_lens_4.safetensors"
    script = Path(__file__).with_name("transformer_lens_4.py")
    done = subprocess.run(
        [sys.executable, str(script), str(setting.checkpoint), str(out)],
        input=json.dumps({"rows": setting.rows, "perspectives": perspectives}),
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    log_probs = [list(of_perspective) for of_perspective in load_file(out)["log_probs"]]
    return log_probs, f"transformer-lens {done.stdout.split()[-1]}, its eager bridge"


def hotwire(setting: Setting) -> tuple[LogProbs, str]:
    """Its reader, its bank of vectors and its kernel, in triton's interpreter, where these are
    installed; else by its description.
    """
    requests = [
        (w.files[0], json.loads(_json(w.files[1])["hotwire"])) for w in setting.export("hotwire")
    ]
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        from hotwire._kernel import steer  # pyright: ignore[reportMissingImports]
        from hotwire._state import SteerState  # pyright: ignore[reportMissingImports]
    except ImportError:
        vectors = []
        for path, request in requests:
            rows = torch.load(path, weights_only=True)
            vectors.append({one["layer"]: one["scale"] * rows[one["layer"]] for one in request})
        return by_rule(setting, vectors), "by its description"
    perspectives = []
    for path, request in requests:
        rows = torch.load(path, weights_only=True)
        state = SteerState(*rows.shape, 1, torch.device("cpu"), torch.float32, len(request))
        state.load_store(str(path))
        slots = {
            one["layer"]: state.slot_for(one["id"], one["layer"], one["scale"]) for one in request
        }
        perspectives.append(
            {layer: partial(_in_slot, steer, state.bank, slot) for layer, slot in slots.items()}
        )
    tool = f"hotwire-vllm {version('hotwire-vllm')}, its kernel in triton's interpreter"
    return by_edits(setting, perspectives), tool


def _in_slot(steer: Any, bank: Any, slot: int, h: torch.Tensor) -> torch.Tensor:
    """A vector of hotwire's bank added to every token's row by its kernel."""
    rows = h[0].clone()
    slots = torch.full((len(rows),), slot, dtype=torch.int32)
    steer(rows, bank.bank, slots, bank.scales)
    return rows.unsqueeze(0)


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
