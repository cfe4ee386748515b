"""What branches say of prompts that ran together, and a warning where one gave no distribution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.broken import said_broken
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reference import ReferencePack, Texts
from saepd.common.errors import InputError

AnyPack: TypeAlias = Pack | ReferencePack


class Scores(NamedTuple):
    """Log-likelihood of each continuation of a prompt, under the base and every branch.

    Attributes:
        log_probs: Log-likelihoods, summed over each continuation's tokens, in nats.
        n_tokens: Number of tokens of each continuation.
    """

    log_probs: Float[Tensor, "branches continuations"]
    n_tokens: list[int]


def next_tokens(
    pack: AnyPack, plan: Plan, indices: Sequence[int], rows: Sequence[list[int]]
) -> list[Float[Tensor, "branches vocab"]]:
    """Next-token log-probs of each prompt under every branch, in nats, on the CPU.

    Args:
        pack: The prompts, as far as they have run.
        plan: The branches.
        indices: What a warning calls each prompt.
        rows: Token ids of each prompt.

    Raises:
        InputError: a direction edits what has already run.
    """
    log_probs = list(pack.log_probs(plan).cpu())
    _warn_of_broken(plan, indices, rows, None, [of_prompt[:, 0] for of_prompt in log_probs])
    return log_probs


def scores(
    pack: AnyPack, plan: Plan, indices: Sequence[int], rows: Sequence[list[int]]
) -> list[Scores]:
    """Scores of the texts that the pack holds; arguments and errors as `next_tokens`.

    Raises:
        InputError: also prompts that were captured without continuations.
    """
    if pack.texts is None:
        raise InputError("these prompts were captured without continuations: give them")
    log_probs = [of_prompt.cpu() for of_prompt in pack.scores(plan)]
    _warn_of_broken(plan, indices, rows, pack.texts, log_probs)
    return [
        Scores(of_prompt, [len(text) for text in texts])
        for of_prompt, texts in zip(log_probs, pack.texts, strict=True)
    ]


def _warn_of_broken(
    plan: Plan,
    indices: Sequence[int],
    rows: Sequence[list[int]],
    texts: Sequence[Texts] | None,
    values: Sequence[Float[Tensor, "branches ..."]],
) -> None:
    """Say which prompts have NaN among their values, and where it began; the others are right."""
    for i, value in enumerate(values):
        broken = value.isnan()
        if bool(broken.any()):
            text: list[int] = []
            if texts is not None:
                text = texts[i][int(broken.any(0).int().argmax())]
            said = said_broken(plan, rows[i] + text, len(rows[i]))
            warnings.warn(f"prompt {indices[i]}: {said}", stacklevel=2)
