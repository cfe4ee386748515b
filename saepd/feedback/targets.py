"""What a row of feedback says, as a distribution over its options."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback


def answered(row: Feedback) -> Float[np.ndarray, " options"]:
    """What a row says as a distribution over its options: one-hot for a single answer.

    Raises:
        InputError: a row that has neither an answer nor a distribution over options.
    """
    if row.distribution is not None:
        return np.asarray(row.distribution)
    if row.answer is None or not row.options:
        raise InputError(
            f"feedback {row.id!r} has no answer among options, nor a distribution over them: "
            "leave it out"
        )
    return np.eye(len(row.options))[row.options.index(row.answer)]
