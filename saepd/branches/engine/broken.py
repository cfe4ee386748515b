"""Where a branch that gave no distribution first broke."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reference import whole_log_probs


def said_broken(plan: Plan, tokens: Sequence[int], n_prompt: int) -> str:
    """Which branches are not a number after a text, from which block on, and what helps.

    Args:
        plan: The branches.
        tokens: Ids of the whole text.
        n_prompt: How many of them are the prompt's.
    """
    faults = []
    for branch in range(plan.n_branches):
        block = _first_broken(plan, tokens, n_prompt, branch)
        if block is not None:
            directions = plan.branches[branch - 1] if branch else []
            names = dict.fromkeys(repr(d.perspective) for d in directions)
            name = " + ".join(names) or "the base model"
            faults.append(f"{name} is not a number from {block} on")
    said = "; ".join(dict.fromkeys(faults)) or "a branch is not a number"
    return f"{said}: use smaller coefficients, or float32"


def _first_broken(plan: Plan, tokens: Sequence[int], n_prompt: int, branch: int) -> str | None:
    broken: list[int] = []

    def noting(index: int) -> Any:
        def note(_module: object, _args: object, output: Any) -> None:
            h = output if isinstance(output, Tensor) else output[0]
            if not bool(h.isfinite().all()):
                broken.append(index)

        return note

    with ExitStack() as stack, torch.inference_mode():
        for index, block in enumerate(list(plan.model.blocks)):
            stack.callback(block.register_forward_hook(noting(index)).remove)
        log_probs = whole_log_probs(plan, tokens, n_prompt, [branch], read=1)
    if broken:
        return f"block {min(broken)}"
    return "the last block" if bool(log_probs.isnan().any()) else None
