"""Run the part of a forward pass that all branches share once, and the rest as often as needed.

Below the lowest edited site all branches are the same run, and before the first edited column too.
`capture` runs these parts and keeps what the rest needs: the hidden state at the site, and keys
and values. `resume` runs the rest. Hugging Face's own forward drives both: hooks stop it at the
site, and take it up there again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.engine.columns import Columns, Tails
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reading import reading
from saepd.branches.engine.running import forward, run_to
from saepd.branches.engine.widening import Copies, Masks, WideRows, widening
from saepd.directions.gate import Amounts, Gate, Reader
from saepd.models.positions import generated_mask, prompt_mask

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import DynamicCache


@dataclass(frozen=True)
class Prefix:
    """What the branches of a batch share, as far as it has run.

    Attributes:
        model: The language model.
        columns: The batch.
        block: The first block that has not run on the columns from ``done`` on.
        first: The first column that may be edited; those before it are the same for all branches.
        done: Columns that have run through all blocks and are cached: ``first`` or none.
        hidden: What the block before ``block`` gave for the columns from ``done`` on, before its
            output's own hooks; None where that is the first block.
        in_tuple: Whether the model's blocks hand on tuples.
        before: The cache's layers after ``done`` columns; None where nothing is cached.
        after: The cache's layers once the blocks below ``block`` have run on all columns.
        amounts: What gates have said of each prompt.
    """

    model: TransformerBridge
    columns: Columns
    block: int
    first: int
    done: int
    hidden: Float[Tensor, "batch columns d_model"] | None
    in_tuple: bool
    before: list[Any] | None
    after: list[Any] | None
    amounts: Amounts


def chosen_rows(prefix: Prefix, rows: Sequence[int]) -> Prefix:
    """What some of the prompts of a batch share, in the order of ``rows``, for one more run.

    Blocks that have run are not asked again for keys and values: theirs stay as they are.
    """
    if list(rows) == list(range(len(prefix.columns.tokens))):
        return prefix
    index = torch.tensor(rows, device=prefix.columns.tokens.device)
    columns, before = prefix.columns, prefix.before
    if before is not None:
        before = [*before[: prefix.block], *map(copy.copy, before[prefix.block :])]
        for layer in before[prefix.block :]:
            layer.batch_select_indices(index)
    return replace(
        prefix,
        columns=Columns(
            columns.tokens[index], columns.real[index], columns.until[index], columns.n_prompt
        ),
        hidden=None if prefix.hidden is None else prefix.hidden[index.to(prefix.hidden.device)],
        before=before,
        after=None,
        amounts={gate: amount[index.to(amount.device)] for gate, amount in prefix.amounts.items()},
    )


def edit_masks(model: TransformerBridge, columns: Columns, specs: Sequence[str]) -> Masks:
    """The columns that each position spec selects.

    Raises:
        InputError: a marker that a prompt does not contain.
    """
    n = columns.n_prompt
    masks: Masks = {}
    for spec in specs:
        inside = prompt_mask(spec, columns.tokens[:, :n], columns.attention, model.tokenizer)
        behind = generated_mask(spec, columns.tokens[:, n:], model.tokenizer)
        masks[spec] = torch.cat([inside, behind & columns.real[:, n:]], dim=1)
    return masks


def first_edited(masks: Masks, n_prompt: int) -> int:
    """The first column that any spec selects, at most the prompt's last: answers are read there."""
    edited = torch.cat([mask[:, :n_prompt] for mask in masks.values()]).any(0)
    return int(edited.int().argmax()) if bool(edited[:-1].any()) else n_prompt - 1


def capture(
    model: TransformerBridge,
    columns: Columns,
    block: int,
    first: int,
    *,
    cached: bool = False,
    keep_cache: bool = False,
    gates: Sequence[Gate | Reader] = (),
) -> Prefix:
    """Run what all branches share.

    Args:
        model: The language model.
        columns: The batch.
        block: The first block that branches may differ in.
        first: The first column that they may differ in.
        cached: Run the columns before ``first`` through all blocks now, and keep their keys and
            values. Otherwise `resume` runs them: better where it is called only once.
        keep_cache: Keep keys and values, for tokens that are fed later.
        gates: What reads the prompts meanwhile.
    """
    from transformers import DynamicCache

    hf_config: Any = model.original_model.config
    done = first if cached else 0
    cache = DynamicCache(config=hf_config) if done or keep_cache else None
    before, hidden, in_tuple = None, None, False
    # No inference mode: gradients may be asked of what resumes from here.
    with torch.no_grad(), reading(model, columns, gates, block) as amounts:
        if done:
            run_to(model, columns, slice(0, done), cache, len(model.blocks))
        if cache is not None:
            before = [copy.copy(layer) for layer in cache.layers]
        if block:
            rest = slice(done, columns.tokens.shape[1])
            hidden, in_tuple = run_to(model, columns, rest, cache, block)
    after = None if cache is None else list(cache.layers)
    return Prefix(model, columns, block, first, done, hidden, in_tuple, before, after, amounts)


def resume_in_rows(
    prefix: Prefix, plan: Plan, masks: Masks
) -> tuple[Float[Tensor, "batch branches vocab"], DynamicCache | None]:
    """Run the branches as rows; logits of the last column, and the cache if there is one.

    Below the plan's first wide block the cache holds one row per prompt, above it K+1.
    """
    layout = WideRows(plan.n_branches, len(prefix.columns.tokens))
    cache = cache_of(prefix, plan.first_wide_block, plan.n_branches)
    masks = {spec: mask[:, prefix.done :] for spec, mask in masks.items()}
    with bypassed(prefix), widening(plan, layout, masks), _short_last_mlp(plan):
        rest = slice(prefix.done, prefix.columns.tokens.shape[1])
        logits = forward(prefix.model, prefix.columns, rest, cache, read=slice(-1, None))
    if cache is not None and prefix.after is not None:
        cache.layers[: prefix.block] = [copy.copy(kept) for kept in prefix.after[: prefix.block]]
    return logits[:, -1].unflatten(0, (-1, plan.n_branches)), cache


def resume_in_columns(
    prefix: Prefix, plan: Plan, masks: Masks, read: Int[Tensor, " read"]
) -> Float[Tensor, "batch branches read vocab"]:
    """Run the branches as copies of columns; logits of every branch at some of them.

    Args:
        prefix: From `capture`, at or below the plan's lowest site.
        plan: The branches.
        masks: The columns that each position spec edits, none of them before the first.
        read: Columns, counted from the first.
    """
    n_columns = prefix.columns.tokens.shape[1]
    tails = Tails(prefix.first, prefix.done, n_columns, plan.n_branches)
    dtype = next(prefix.model.original_model.parameters()).dtype
    layout = Copies(prefix.columns, tails, dtype)
    cache = cache_of(prefix, plan.first_wide_block, 1)
    masks = {spec: mask[:, prefix.first :] for spec, mask in masks.items()}
    starts = (
        tails.first - tails.done + tails.n_tail * torch.arange(plan.n_branches, device=read.device)
    )
    index = (starts.unsqueeze(1) + read).flatten()
    with bypassed(prefix), widening(plan, layout, masks):
        rest = slice(prefix.done, n_columns)
        logits = forward(prefix.model, prefix.columns, rest, cache, read=index)
    return logits.unflatten(1, (plan.n_branches, len(read)))


@contextmanager
def bypassed(prefix: Prefix) -> Iterator[None]:
    """Let the forward skip the blocks that have run, and take up the hidden state they gave."""
    if prefix.hidden is None:
        yield
        return
    blocks = list(prefix.model.blocks)[: prefix.block]

    def passing(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden,) if prefix.in_tuple else hidden

    def taking_up(*_args: Any, **_kwargs: Any) -> Any:
        return passing(blocks[-1].hook_out(prefix.hidden))

    stand_ins: list[Callable[..., Any]] = [passing] * (len(blocks) - 1) + [taking_up]
    with ExitStack() as stack:
        for block, stand_in in zip(blocks, stand_ins, strict=True):
            stack.callback(block.__dict__.pop, "forward")
            block.__dict__["forward"] = stand_in
        yield


@contextmanager
def _short_last_mlp(plan: Plan) -> Iterator[None]:
    """Give the last block's MLP only the last column, where nothing but that is read.

    What it gives is added to every column of the residual stream, rightly so to the last.
    """
    last = list(plan.model.blocks)[-1]
    mlp = getattr(last, "mlp", None)
    inside = any(d.block == len(plan.model.blocks) - 1 for b in plan.branches for d in b)
    if mlp is None or inside:
        yield
        return
    handle = mlp.register_forward_pre_hook(lambda _mlp, args: (args[0][:, -1:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def cache_of(prefix: Prefix, first_wide_block: int, n_branches: int) -> DynamicCache | None:
    """A cache of the columns that are done, with K+1 rows per prompt in the wide blocks."""
    from transformers import DynamicCache

    if prefix.before is None:
        return None
    hf_config: Any = prefix.model.original_model.config
    cache = DynamicCache(config=hf_config)
    cache.layers = [copy.copy(layer) for layer in prefix.before]
    if prefix.done and n_branches > 1:
        wide: list[Any] = cache.layers[first_wide_block:]
        for layer in wide:
            layer.batch_repeat_interleave(n_branches)
    return cache
