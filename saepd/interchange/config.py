"""Formats of other tools, by name: what a command needs to know of them before its model."""

from __future__ import annotations

HUB = "hub"
# Each with the tool that reads it, and in which files.
WRITTEN = {
    "llama.cpp": "control vector in GGUF, for llama-cli and llama-server",
    "repeng": "control vector in GGUF, for ControlVector.import_gguf",
    "steering-vectors": "safetensors, for SteeringVector",
    "lm-eval": ".pt for lm_eval --model steered",
    "neuronpedia": "JSON of vector and latents, and links that need no key",
    "easysteer": "JSON of a SteeringSpec beside its vector in GGUF",
    "transformer-lens": "JSON of intervention specs, as TransformerLens 4 reads them",
    "aisteer360": ".svec, JSON of layers",
    "interp-engine": "JSON, as its server reads steering",
    "hotwire": ".pt of one row a layer, and the JSON of a request",
    HUB: "folder with a card for the Hugging Face hub; nothing is sent",
}
READ = {
    "llama.cpp": "control vector in GGUF, of llama.cpp or of repeng",
    "steering-vectors": "safetensors with one layer_activations.N a layer",
    "aisteer360": ".svec, JSON of layers",
    "tensors": "safetensors with one vector, or with one a layer",
}
