"""Hooks that turn one run into K+1: they widen what blocks are given, and edit every site.

A forward pass enters the lowest edited site with one row per prompt. There the hidden state is
widened, and so is whatever Hugging Face's forward hands to the blocks after it (masks, rotary
embeddings, positions). Branches become rows of the batch (`WideRows`), or copies of a row's own
columns (`Copies`), which share all columns before the first edited one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Shaped
from torch import Tensor

from saepd.branches.engine.columns import Columns, Tails, additive
from saepd.branches.engine.plan import Plan, PositionedEdit
from saepd.directions.gate import Amounts, Gate
from saepd.directions.sites import activation_read

# The columns that each position spec edits; and under a spec with a gate, how much of a direction
# with both is written in each column.
Masks: TypeAlias = dict[str | tuple[str, Gate], Shaped[Tensor, "batch columns"]]
_Edit: TypeAlias = Callable[[Float[Tensor, "batch branches columns d_model"]], Any]


def gated(masks: Masks, plan: Plan, amounts: Amounts) -> Masks:
    """The masks of position specs, and those of the plan's gated directions.

    Args:
        masks: The columns that each position spec edits.
        plan: The branches.
        amounts: What each gate says of each row.
    """
    all_masks = dict(masks)
    for _, edit in (pair for edits in plan.edits.values() for pair in edits):
        if edit.gate is not None:
            amount = amounts[edit.gate].unsqueeze(-1)
            all_masks[edit.positions, edit.gate] = masks[edit.positions] * amount
    return all_masks


def share_of(masks: Masks, edit: PositionedEdit) -> Shaped[Tensor, "batch columns 1"]:
    """How much of an edit each column gets."""
    key = edit.positions if edit.gate is None else (edit.positions, edit.gate)
    return masks[key].unsqueeze(-1)


class WideRows:
    """Every row of a batch becomes K+1 rows, one after the other."""

    def __init__(self, n_branches: int, batch: int) -> None:
        self.n_branches, self.batch = n_branches, batch

    def widened(self, h: Float[Tensor, "batch columns d"]) -> Float[Tensor, "rows columns d"]:
        """Each row K+1 times."""
        return repeat(h, "batch ... -> (batch branches) ...", branches=self.n_branches)

    def other(self, value: Any) -> Any:
        """An argument of a block that is not the hidden state."""
        if isinstance(value, tuple):
            return tuple(self.other(part) for part in value)
        # What is given once for the whole batch broadcasts over the added rows as well.
        per_row = isinstance(value, torch.Tensor) and value.ndim > 1
        if per_row and value.shape[0] == self.batch > 1:
            return value.repeat_interleave(self.n_branches, dim=0)
        return value

    def edited(self, h: Float[Tensor, "rows columns d"], edit: _Edit) -> Any:
        """The rows after ``edit`` has seen them as branches."""
        by_branch = rearrange(
            h, "(batch branches) ... -> batch branches ...", branches=self.n_branches
        )
        return rearrange(edit(by_branch), "batch branches ... -> (batch branches) ...")


class Copies:
    """Every row stays one; from the first edited column on, each branch has its own columns."""

    def __init__(self, columns: Columns, tails: Tails, dtype: Any) -> None:
        self.tails = tails
        self.n_run = tails.n_columns - tails.done
        source, _ = tails.source(columns.tokens.device)
        self.source = source - tails.done
        self.mask = additive(tails.visible(columns.visible), dtype)

    def widened(self, h: Float[Tensor, "batch columns d"]) -> Float[Tensor, "batch wide d"]:
        """The shared columns, then every branch's copy of the others."""
        return h.index_select(1, self.source.to(h.device))

    def other(self, value: Any) -> Any:
        """An argument of a block that is not the hidden state."""
        if isinstance(value, tuple):
            return tuple(self.other(part) for part in value)
        if not isinstance(value, torch.Tensor):
            return value
        if value.ndim == 4:
            return self.mask.to(value.device)
        column = 1 if value.ndim > 1 else 0
        if value.ndim > column and value.shape[column] == self.n_run:
            return value.index_select(column, self.source.to(value.device))
        return value

    def edited(self, h: Float[Tensor, "batch wide d"], edit: _Edit) -> Any:
        """The columns after ``edit`` has seen each branch's own ones."""
        n_shared = self.tails.first - self.tails.done
        by_branch = rearrange(
            h[:, n_shared:],
            "batch (branches column) d -> batch branches column d",
            branches=self.tails.n_branches,
        )
        joined = rearrange(edit(by_branch), "batch branches column d -> batch (branches column) d")
        return torch.cat([h[:, :n_shared], joined], dim=1)


@contextmanager
def widening(plan: Plan, layout: WideRows | Copies, masks: Masks) -> Iterator[None]:
    """Widen at the plan's lowest site, and edit there and at every other of its sites.

    Args:
        plan: The branches.
        layout: What a branch is in a batch.
        masks: How much each column gets, among those that a branch has; from `gated`.
    """

    def widen_block_input(
        block: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        is_first = block is plan.model.blocks[plan.first_wide_block]
        widen = layout.widened if is_first and plan.widened_at is None else _unchanged
        if "hidden_states" in kwargs:
            others = {k: layout.other(v) for k, v in kwargs.items() if k != "hidden_states"}
            hidden = widen(kwargs["hidden_states"])
            return tuple(map(layout.other, args)), {**others, "hidden_states": hidden}
        others = {name: layout.other(value) for name, value in kwargs.items()}
        return (widen(args[0]), *map(layout.other, args[1:])), others

    held: dict[str, Tensor] = {}

    def edit_site(site: Any, _args: object, h: Tensor) -> Float[Tensor, "rows columns d_model"]:
        def edited(by_branch: Tensor) -> Tensor:
            added = _added(plan.edits.get(site, []), by_branch, masks, held)
            if (name := plan.read_elsewhere.get(site)) is not None:
                held[name] = added
            return added

        wide = layout.widened(h) if site is plan.widened_at else h
        return layout.edited(wide, edited)

    sites = dict.fromkeys([*plan.edits, *plan.read_elsewhere])
    if plan.widened_at is not None:
        sites[plan.widened_at] = None
    with ExitStack() as stack:
        for block in list(plan.model.blocks)[plan.first_wide_block :]:
            handle = block.register_forward_pre_hook(widen_block_input, with_kwargs=True)
            stack.callback(handle.remove)
        for site in sites:
            stack.callback(site.register_forward_hook(edit_site).remove)
        yield


def _added(
    edits: list[tuple[int, PositionedEdit]],
    by_branch: Float[Tensor, "batch branches columns d_model"],
    masks: Masks,
    held: dict[str, Tensor],
) -> Float[Tensor, "batch branches columns d_model"]:
    """Each branch's columns with its own directions at a site added."""
    out = by_branch.clone()
    for index, direction in edits:
        share = share_of(masks, direction).to(by_branch)
        read = activation_read(direction.reads, direction.hook_name, by_branch, held)[:, index]
        out[:, index] += direction.delta(read) * share
    return out


def _unchanged(h: Tensor) -> Tensor:
    return h
