"""Where a model computes, and with how many bits."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from saepd.common.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A precision by name.

    Raises:
        InputError: none of float32, bfloat16 and float16.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise InputError(f"unknown dtype {dtype!r}: use one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def best_device() -> str:
    """``cuda``, ``mps`` or ``cpu``, whichever is there first."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def torch_device(device: str | None) -> torch.device:
    """A device by name; the best one there is if None.

    Raises:
        InputError: no such device on this machine.
    """
    try:
        chosen = torch.device(device or best_device())
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: use cpu, cuda, cuda:1 or mps") from error
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (chosen.index or 0) >= there.get(chosen.type, 0):
        raise InputError(
            f"there is no device {device!r} on this machine, or this build of torch cannot use it: "
            f"the best that it can use is {best_device()}"
        )
    return chosen


def computing_dtype(hf_model: Any) -> torch.dtype:
    """The precision that a model computes in; quantised weights are integers beside it."""
    if getattr(hf_model, "is_loaded_in_8bit", False):
        # bitsandbytes casts what goes into such weights, whatever the model's precision is.
        return torch.float16
    return next(p.dtype for p in hf_model.parameters() if p.is_floating_point())


def quantisation_config(quantize: str, dtype: torch.dtype) -> Any:
    """How transformers is told to quantise weights as it loads them; None if it shall not.

    Raises:
        InputError: an unknown name, or no bitsandbytes to do it with.
    """
    if quantize == "none":
        return None
    if quantize not in ("4bit", "8bit"):
        raise InputError(f"unknown quantisation {quantize!r}: use none, 4bit or 8bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"quantize {quantize} needs bitsandbytes: run `pip install bitsandbytes`")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_compute_dtype=dtype,
    )
