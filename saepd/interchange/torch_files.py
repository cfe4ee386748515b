"""Files that others load with ``torch.load``: written here, and never read.

What is in them are tensors, numbers and names, so that ``weights_only=True`` reads them too.
"""

from __future__ import annotations

import io
import json
from typing import Any

import torch

from saepd.interchange.record import SteeringRecord


def write_lm_eval(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """What ``lm_eval --model steered --model_args steer_path=`` takes: one entry a module."""
    entries = {
        f"{record.model.blocks_at}.{block}": {
            "steering_vector": torch.from_numpy(vector.copy()).unsqueeze(0),
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
        for block, vector in record.by_block().items()
    }
    return {f"{stem}.pt": _saved(entries)}


def write_hotwire(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """One row a layer for ``HOTWIRE_VECTORS``, and the JSON that a request sends."""
    rows = torch.zeros(record.model.n_blocks, record.model.d_model)
    request = []
    for block, vector in record.by_block().items():
        rows[block] = torch.from_numpy(vector.copy())
        request.append({"id": stem, "layer": block, "scale": 1.0})
    return {
        f"{stem}.pt": _saved(rows),
        f"{stem}.request.json": json.dumps({"hotwire": json.dumps(request)}, indent=1).encode(),
    }


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
