"""Run the base model and every steered branch on prompts, and on texts that may follow them, once.

For many directions over the same prompts, `saepd.branches.captured` keeps what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.pack import longest, pack_costs
from saepd.branches.engine.plan import (
    Branch,
    Plan,
    check_continuations,
    check_prompts,
    make_plan,
)
from saepd.branches.engine.reference import ReferencePack, Texts
from saepd.branches.fast_path import pack_kind
from saepd.branches.pack_results import AnyPack, Scores, next_tokens, scores
from saepd.common.errors import InputError
from saepd.models.batching import in_packs
from saepd.models.in_use import using
from saepd.models.tokens import check_lengths

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_Result = TypeVar("_Result")


def branch(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """Next-token log-probs of the base model (branch 0) and of every direction (1..K).

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: One entry a branch; an entry of several directions applies them together.
        reference: Run K+1 hooked rows of every prompt alone: slow, for checking this function.

    Returns:
        Log-probs in nats, on the CPU, in the order of the prompts. A branch that gave no
        distribution is NaN there, and a warning names prompt, branch and block.

    Raises:
        InputError: no prompts, an empty or too long one, no directions, or one that does not fit.
    """
    if not directions:
        raise InputError("no directions: give at least one to branch into")
    return next_token_log_probs(model, prompts, directions, reference=reference)


def next_token_log_probs(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """`branch`, but without directions the base is read alone: [batch, 1, vocab]."""
    rows = check_prompts(model, prompts)
    plan = make_plan(model, directions)
    return torch.stack(_run_once(plan, rows, None, next_tokens, reference=reference))


def score_continuations(
    model: TransformerBridge,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    directions: Sequence[Branch],
) -> list[Scores]:
    """Log-likelihood of each continuation of each prompt, under the base and every branch.

    Without directions only the base is scored. The prompt runs once; its continuations are a few
    more tokens behind it. Where a branch gives no distribution its scores are NaN, and a warning
    names prompt, branch and block.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        continuations: For each prompt, the texts that are scored behind it.
        directions: One entry a branch; an entry of several directions applies them together.

    Returns:
        For each prompt, log-likelihoods in nats, [branches, continuations], the base's first.

    Raises:
        InputError: as `branch`, or a prompt without continuations.
    """
    rows = check_prompts(model, prompts)
    texts = check_continuations(model, prompts, rows, continuations)
    return score_tokens(model, rows, texts, directions)


def score_tokens(
    model: TransformerBridge,
    rows: Sequence[list[int]],
    texts: Sequence[Texts],
    directions: Sequence[Branch],
) -> list[Scores]:
    """`score_continuations` of prompts and texts that are token ids already.

    Args:
        model: From `saepd.load_model`.
        rows: Token ids of each prompt.
        texts: Token ids of each text behind it; none may be empty.
        directions: One entry a branch; none to score the base alone.

    Raises:
        InputError: a direction that does not fit, or a text that the context has no room for.
    """
    plan = make_plan(model, directions)
    check_lengths(model, rows, room=[max(map(len, of_prompt)) for of_prompt in texts])
    return _run_once(plan, rows, texts, scores)


def _run_once(
    plan: Plan,
    rows: Sequence[list[int]],
    texts: Sequence[Texts] | None,
    read: Callable[[AnyPack, Plan, Sequence[int], Sequence[list[int]]], Sequence[_Result]],
    *,
    reference: bool = False,
) -> list[_Result]:
    """What is read of each prompt; they run in packs, each for these branches only."""

    def run(indices: list[int]) -> Sequence[_Result]:
        chosen = [rows[i] for i in indices]
        its_texts = None if texts is None else [texts[i] for i in indices]
        with using(plan.model), torch.inference_mode():
            kind = ReferencePack if reference else pack_kind(plan.model, longest(chosen, its_texts))
            pack = kind.capture(
                plan.model,
                chosen,
                its_texts,
                plan.first_wide_block,
                plan.specs,
                n_branches=plan.n_branches,
                gates=plan.gates,
            )
            return read(pack, plan, indices, chosen)

    costs = pack_costs(plan.model, rows, texts, plan.specs, plan.n_branches)
    return in_packs(plan.model, costs, run)
