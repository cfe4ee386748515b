"""What functions on log-probs take: tensors, arrays, or nested lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.messages import shortened


def as_tensor(given: Any) -> Tensor:
    """The numbers that were given, as they are if they are a tensor, else in double precision.

    Raises:
        InputError: no numbers, or rows of different lengths.
    """
    if isinstance(given, Tensor):
        return given
    try:
        return torch.from_numpy(np.array(given, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{shortened(given)} holds no log-probs: give a tensor, an array, or lists of numbers "
            "that are equally long"
        ) from error
