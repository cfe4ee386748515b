"""Which model it is: its weights settle that, its name is a hint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def weights_fingerprint(model: TransformerBridge) -> str:
    """Short hash of a sample of every weight, equal for float32 and bfloat16 copies of a model."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.original_model.named_parameters()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16)
        digest.update(name.encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
