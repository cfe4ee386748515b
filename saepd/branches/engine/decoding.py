"""Feed further tokens to every branch after a prompt, with one cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.engine.columns import NEVER, Columns
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.prefix import capture, edit_masks, first_edited, resume_in_rows
from saepd.branches.engine.running import forward
from saepd.branches.engine.widening import Masks, WideRows, gated, share_of, widening
from saepd.directions.gate import Amounts
from saepd.directions.sites import activation_read
from saepd.models.positions import generated_mask

if TYPE_CHECKING:
    from transformers import DynamicCache


# A shared start shorter than this saves less than the second pass over the weights costs.
MIN_SHARED = 8


@dataclass
class State:
    """Where the branches of a batch stand after their last token.

    Attributes:
        plan: The branches.
        columns: Every token so far.
        cache: Below the first wide block one row per prompt, above it K+1 rows per prompt.
        log_probs: Log-probs of the next token, in nats.
        amounts: What the plan's gates say of each prompt.
    """

    plan: Plan
    columns: Columns
    cache: DynamicCache
    log_probs: Float[Tensor, "batch branches vocab"]
    amounts: Amounts

    def feed(self, tokens: Int[Tensor, " batch"]) -> None:
        """Let all branches of every text read a token."""
        new = tokens.unsqueeze(-1)
        self.log_probs = extend(self, new, torch.ones_like(new))[:, :, -1]

    def keep(self, kept: list[int]) -> None:
        """Leave out all texts but these."""
        rows = torch.tensor(kept, device=self.log_probs.device)
        chosen = select_rows(self, rows)
        self.columns, self.log_probs = chosen.columns, chosen.log_probs
        self.amounts = chosen.amounts


def start(plan: Plan, columns: Columns) -> State:
    """Run prompts up to the next-token distributions of all branches, keeping the cache."""
    masks = edit_masks(plan.model, columns, plan.specs)
    first = first_edited(masks, columns.n_prompt)
    with torch.inference_mode():
        prefix = capture(
            plan.model,
            columns,
            plan.first_wide_block,
            first,
            cached=first >= MIN_SHARED,
            keep_cache=True,
            gates=plan.gates,
        )
        logits, cache = resume_in_rows(prefix, plan, gated(masks, plan, prefix.amounts))
        log_probs = logits.float().log_softmax(-1)
    assert cache is not None
    return State(plan, columns, cache, log_probs, prefix.amounts)


def extend(
    state: State, tokens: Int[Tensor, "batch new"], real: Int[Tensor, "batch new"]
) -> Float[Tensor, "batch branches new vocab"]:
    """Feed further tokens to every branch; the state's cache and columns grow by them.

    Returns:
        Log-probs in nats of the token after each of the new ones.
    """
    plan, before = state.plan, state.columns
    n_new = tokens.shape[1]
    columns = Columns(
        torch.cat([before.tokens, tokens], dim=1),
        torch.cat([before.real, real.bool()], dim=1),
        torch.cat([before.until, torch.full_like(tokens, NEVER)], dim=1),
        before.n_prompt + n_new,
    )
    masks: Masks = {
        spec: generated_mask(spec, tokens, plan.model.tokenizer) & real.bool()
        for spec in plan.specs
    }
    masks = gated(masks, plan, state.amounts)
    with torch.inference_mode(), widening(plan, WideRows(plan.n_branches, len(tokens)), masks):
        chosen = slice(before.n_prompt, columns.n_prompt)
        logits = forward(plan.model, columns, chosen, state.cache, read=slice(-n_new, None))
        log_probs = logits.float().log_softmax(-1)
    state.columns = columns
    return log_probs.unflatten(0, (-1, plan.n_branches))


def select_rows(state: State, owner: Int[Tensor, " rows"]) -> State:
    """The state with one row for every entry of ``owner``, the index of its prompt.

    The given state's own cache is used up.
    """
    n = state.plan.n_branches
    wide = (owner.unsqueeze(1) * n + torch.arange(n, device=owner.device)).flatten()
    layers: list[Any] = state.cache.layers
    for index, layer in enumerate(layers):
        layer.batch_select_indices(owner if index < state.plan.first_wide_block else wide)
    before = state.columns
    columns = replace(
        before, tokens=before.tokens[owner], real=before.real[owner], until=before.until[owner]
    )
    amounts = {gate: amount[owner] for gate, amount in state.amounts.items()}
    return State(state.plan, columns, state.cache, state.log_probs[owner], amounts)


@dataclass
class Separate:
    """Where branches stand that read different tokens: each is a row, in every block.

    Attributes:
        plan: The branches.
        columns: Every token so far, one row for each branch of each prompt.
        cache: With the same rows.
        log_probs: Log-probs of the next token, in nats.
        branch: Each row's branch.
        amounts: What the plan's gates say of each row's prompt.
        rows_of: The rows of every branch that is left.
    """

    plan: Plan
    columns: Columns
    cache: DynamicCache
    log_probs: Float[Tensor, "rows vocab"]
    branch: list[int]
    amounts: Amounts
    rows_of: dict[int, Int[Tensor, " rows"]] = field(init=False)

    def __post_init__(self) -> None:
        self._find_rows()

    def _find_rows(self) -> None:
        # On the device once, so that edits need no copy in the token loop.
        device = self.log_probs.device
        self.rows_of = {
            branch: torch.tensor([i for i, b in enumerate(self.branch) if b == branch]).to(device)
            for branch in set(self.branch)
        }

    def feed(self, tokens: Int[Tensor, " rows"]) -> None:
        """Let every row read a token of its own."""
        plan, before, new = self.plan, self.columns, tokens.unsqueeze(-1)
        columns = Columns(
            torch.cat([before.tokens, new], dim=1),
            torch.cat([before.real, torch.ones_like(new, dtype=torch.bool)], dim=1),
            torch.cat([before.until, torch.full_like(new, NEVER)], dim=1),
            before.n_prompt + 1,
        )
        masks: Masks = {
            spec: generated_mask(spec, new, plan.model.tokenizer) for spec in plan.specs
        }
        with torch.inference_mode(), _editing(self, gated(masks, plan, self.amounts)):
            chosen = slice(before.n_prompt, columns.n_prompt)
            logits = forward(plan.model, columns, chosen, self.cache, read=slice(-1, None))
            self.log_probs = logits[:, -1].float().log_softmax(-1)
        self.columns = columns

    def keep(self, kept: list[int]) -> None:
        """Leave out all rows but these."""
        rows = torch.tensor(kept, device=self.log_probs.device)
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.batch_select_indices(rows)
        before = self.columns
        self.columns = replace(
            before, tokens=before.tokens[rows], real=before.real[rows], until=before.until[rows]
        )
        self.log_probs = self.log_probs[rows]
        self.branch = [self.branch[row] for row in kept]
        self.amounts = {gate: amount[rows] for gate, amount in self.amounts.items()}
        self._find_rows()


def separate(state: State) -> Separate:
    """Let every branch go on with tokens of its own; the given state's cache is used up.

    Rows are the first prompt's branches, base first, then the next prompt's.
    """
    n = state.plan.n_branches
    layers: list[Any] = state.cache.layers[: state.plan.first_wide_block]
    for layer in layers:
        layer.batch_repeat_interleave(n)
    before = state.columns
    columns = replace(
        before,
        tokens=before.tokens.repeat_interleave(n, dim=0),
        real=before.real.repeat_interleave(n, dim=0),
        until=before.until.repeat_interleave(n, dim=0),
    )
    branch = list(range(n)) * len(before.tokens)
    amounts = {gate: amount.repeat_interleave(n) for gate, amount in state.amounts.items()}
    log_probs = state.log_probs.flatten(0, 1)
    return Separate(state.plan, columns, state.cache, log_probs, branch, amounts)


@contextmanager
def _editing(state: Separate, masks: Masks) -> Iterator[None]:
    """Edit every site of the plan in the rows of the branches that edit it."""

    held: dict[str, Tensor] = {}

    def edit_site(site: Any, _args: object, h: Tensor) -> Float[Tensor, "rows columns d_model"]:
        out = h.clone()
        for index, direction in state.plan.edits.get(site, []):
            if index in state.rows_of:
                rows = state.rows_of[index].to(h.device)
                read = activation_read(direction.reads, direction.hook_name, h, held)[rows]
                share = share_of(masks, direction).to(h.device)[rows].to(h)
                out[rows] += direction.delta(read) * share
        if (name := state.plan.read_elsewhere.get(site)) is not None:
            held[name] = out
        return out

    with ExitStack() as stack:
        for site in dict.fromkeys([*state.plan.edits, *state.plan.read_elsewhere]):
            stack.callback(site.register_forward_hook(edit_site).remove)
        yield
