"""GGUF files: what is in them, written out as a folder that transformers loads fast."""

from __future__ import annotations

from pathlib import Path

from saepd.common.errors import InputError, first_line


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write the dequantised weights and the tokenizer of a GGUF into a folder.

    Raises:
        InputError: the file cannot be read as a GGUF.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(gguf.parent), gguf.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype="float32",
            quantization_config=GgufConfig(dequantize=True),
        )
    except Exception as error:
        # The GGUF readers raise whatever their parsers stumble over.
        raise InputError(f"{gguf} cannot be read as a GGUF model: {first_line(error)}") from error
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
