"""Numbers that users give, as tensors: vectors that are finite, ids of latents that exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError

Numbers: TypeAlias = Tensor | np.ndarray | Sequence[float]


def finite_vector(numbers: Any, what: str) -> Float[Tensor, " n"]:
    """A copy of a list of numbers in float32.

    Raises:
        InputError: it is none, is empty, or holds what is not finite.
    """
    vector = _as_tensor(numbers, what)
    if vector.ndim != 1 or len(vector) == 0 or vector.is_complex():
        raise InputError(f"{what} must be a list of numbers, not of shape {tuple(vector.shape)}")
    # A copy, so that what the caller does to its numbers afterwards changes no direction.
    vector = vector.detach().to(torch.float32, copy=True)
    if not bool(vector.isfinite().all()):
        raise InputError(
            f"{what} must be finite in float32: NaN, infinity or a larger number is among them"
        )
    return vector


def latent_ids(numbers: Any, d_sae: int) -> Int[Tensor, " k"]:
    """A copy of ids of latents.

    Raises:
        InputError: it is no list of whole numbers, is empty, names a latent that an SAE of this
            size does not have, or one twice.
    """
    latents = _as_tensor(numbers, "latents")
    if latents.ndim != 1 or len(latents) == 0:
        raise InputError(
            f"latents must be a list of at least one id, not of shape {tuple(latents.shape)}"
        )
    if latents.is_floating_point() or latents.is_complex() or latents.dtype == torch.bool:
        raise InputError(f"latents must be whole numbers, not {latents.dtype}")
    if bool(((latents < 0) | (latents >= d_sae)).any()):
        raise InputError(f"latent ids must be in 0..{d_sae - 1}, which is all that the SAE has")
    if len(latents.unique()) != len(latents):
        raise InputError("a latent is named twice: give each of them once")
    return latents.to(torch.long, copy=True)


def _as_tensor(numbers: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(numbers)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} must be a list of numbers: {error}") from error
