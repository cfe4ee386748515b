"""Where a model's weights go, and whether they fit there: asked before any of them is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import torch

from saepd.common.errors import InputError
from saepd.models.device import best_device, torch_device

DeviceMap: TypeAlias = str | dict[str, str | int]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

# How transformers may be told to split a model over all devices by itself.
_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
# Bytes a weight, with what bitsandbytes notes of each block of 64, or of each row.
_QUANTISED = {"4bit": 0.5 + 4 / 64, "8bit": 1.0}
_GB = 1e9


def devices_of(device_map: DeviceMap) -> list[torch.device]:
    """The devices that a map puts weights on.

    Raises:
        InputError: a device that is not there, or weights that would be fetched anew from the CPU's
            memory or from disk for every token.
    """
    if device_map in _AUTOMATIC:
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return [torch.device("cuda", i) for i in range(n)] or [torch_device(best_device())]
    named = device_map.values() if isinstance(device_map, dict) else [device_map]
    kinds = {str(name) for name in named}
    if not kinds:
        raise InputError('the device_map is empty: use auto, or map "" to a device')
    if "disk" in kinds or ("cpu" in kinds and len(kinds) > 1):
        raise InputError(
            "the device_map keeps some weights on the CPU or on disk and others elsewhere, so that "
            "every token would fetch them anew: put all on devices that compute, or all on the CPU"
        )
    return [torch_device(f"cuda:{name}" if name.isdecimal() else name) for name in sorted(kinds)]


def check_not_offloaded(hf_model: Any) -> None:
    """Refuse a model of which transformers, splitting it by itself, kept a part off its devices.

    Raises:
        InputError: some weights are not on the devices that compute.
    """
    placed: Mapping[str, Any] = getattr(hf_model, "hf_device_map", None) or {}
    kinds = {str(device) for device in placed.values()}
    if "disk" in kinds or ("cpu" in kinds and len(kinds) > 1):
        away = sum(str(device) in ("cpu", "disk") for device in placed.values())
        raise InputError(
            f"the devices have no room for {away} of the model's {len(placed)} parts, and saepd "
            "runs nothing from the CPU's memory: quantize it, or use dtype bfloat16"
        )


def check_room(
    name: str,
    shapes: Shapes,
    dtype: torch.dtype,
    quantize: str,
    devices: list[torch.device],
) -> None:
    """Refuse a model whose weights are larger than the memory that is free.

    Args:
        name: The model, for the message.
        shapes: Shapes of its weights, from `shapes_in` or `shapes_by_config`.
        dtype: What they are loaded in.
        quantize: ``none``, ``4bit`` or ``8bit``.
        devices: Where they go.

    Raises:
        InputError: how much is needed and free, and what would fit.
    """
    free = sum(map(_free_bytes, devices))
    needed = weights_bytes(shapes, dtype, quantize)
    if needed <= free:
        return
    ways = {"dtype bfloat16": (torch.bfloat16, quantize)}
    ways |= {f"quantize {bits}": (torch.bfloat16, bits) for bits in _QUANTISED}
    smaller = [way for way, how in ways.items() if weights_bytes(shapes, *how) <= free]
    where = " and ".join(map(str, devices))
    how = quantize if quantize != "none" else str(dtype).removeprefix("torch.")
    raise InputError(
        f"the weights of {name} take {needed / _GB:.1f} GB in {how}, and {free / _GB:.1f} GB are "
        f"free on {where}: use {' or '.join([*smaller, 'a smaller model'])}"
    )


def weights_bytes(shapes: Shapes, dtype: torch.dtype, quantize: str) -> float:
    """What weights take in memory.

    bitsandbytes leaves embeddings, the unembedding and whatever is no matrix as they are.
    """
    total = 0.0
    for name, shape in shapes.items():
        kept = len(shape) < 2 or "embed" in name or "lm_head" in name
        each = _QUANTISED.get(quantize, dtype.itemsize) if not kept else dtype.itemsize
        total += torch.Size(shape).numel() * each
    return total


def shapes_in(folder: Path | None) -> Shapes:
    """Shapes of the weights in a folder's safetensors files, from their headers; none without."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except (OSError, SafetensorError):
            # Whoever loads it says what is wrong with it.
            return {}
    return shapes


def shapes_by_config(config: Any, *, trust_remote_code: bool) -> Shapes:
    """Shapes of the weights of a model that is not on this machine, by its configuration.

    The model is built without memory for its weights. None of an architecture that cannot be.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:
        # Some models compute with their weights as they are made; loading them will tell.
        return {}
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Apple's devices share the CPU's memory.
    return psutil.virtual_memory().available
