"""GGUF files: what is in them, written out as a folder that transformers loads fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from saepd.common.errors import InputError, first_line
from saepd.models.gguf_check import check_metadata, check_splitting, check_tensors
from saepd.models.weights import check_complete

# Half as large as float32, and as good where nothing is lost.
_HALVES = (torch.bfloat16, torch.float16)


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write the dequantised weights and the tokenizer of a GGUF into a folder.

    The weights are float32 unless they are halves to begin with: what 4 to 8 bits and a scale give
    has more digits than a half holds.

    Raises:
        InputError: the file cannot be read as a GGUF, or holds something that transformers' reader
            leaves out.
    """
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(gguf.parent), gguf.name
    try:
        reader: Any = GGUFReader(gguf)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype="float32",
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        model, info = loaded
    except Exception as error:
        # The GGUF readers raise whatever their parsers stumble over.
        raise InputError(f"{gguf} cannot be read as a GGUF model: {first_line(error)}") from error
    check_complete(info, name)
    check_tensors(reader, model, name)
    check_metadata(reader, model.config, name)
    check_splitting(reader, name)
    template = reader.fields.get("tokenizer.chat_template")
    if template is not None and not tokenizer.chat_template:
        tokenizer.chat_template = template.contents()
    tokenizer.save_pretrained(out)
    model.to(_smallest_dtype(model)).save_pretrained(out)


def _smallest_dtype(model: torch.nn.Module) -> torch.dtype:
    """The smallest precision that holds every weight as it is."""
    for dtype in _HALVES:
        if all(torch.equal(p.to(dtype).to(p.dtype), p) for p in model.parameters()):
            return dtype
    return torch.float32
