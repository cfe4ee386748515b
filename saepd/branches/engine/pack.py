"""One batch of prompts, captured as far as its branches agree, and run on for any directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.engine.columns import fits_columns, prompt_columns
from saepd.branches.engine.decoding import MIN_SHARED, State, extend, select_rows
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.prefix import (
    Prefix,
    capture,
    edit_masks,
    first_edited,
    resume_in_columns,
    resume_in_rows,
)
from saepd.branches.engine.reading import amounts_of
from saepd.branches.engine.reference import Texts
from saepd.branches.engine.running import normaliser
from saepd.branches.engine.texts import TextTree, text_tree
from saepd.branches.engine.widening import Masks, gated
from saepd.common.errors import InputError
from saepd.directions.gate import Gate, Reader
from saepd.models.batching import logit_cost
from saepd.models.position_specs import parse_positions

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


# Columns of a row see each other in one square of attention scores. Beyond this many copied ones,
# branches run in turns, or as rows.
MAX_COPIED = 1024


@dataclass(frozen=True)
class Pack:
    """A batch of prompts, with the texts that may follow each, and what its branches share.

    Attributes:
        prefix: What they share.
        texts: Token ids of what may follow each prompt; None where only the next token is read.
        trees: How the texts are laid out.
        as_copies: Whether branches are copies of columns; rows otherwise.
    """

    prefix: Prefix
    texts: list[Texts] | None
    trees: list[TextTree] | None
    as_copies: bool

    @classmethod
    def capture(
        cls,
        model: TransformerBridge,
        rows: Sequence[list[int]],
        texts: list[Texts] | None,
        block: int,
        specs: Sequence[str],
        *,
        n_branches: int | None = None,
        gates: Sequence[Gate | Reader] = (),
    ) -> Pack:
        """Run what branches share that edit at some positions, from a block on.

        Args:
            model: The language model.
            rows: Token ids of each prompt.
            texts: Token ids of what may follow each prompt.
            block: The first block that the branches may differ in.
            specs: The positions that they may edit.
            n_branches: K+1, if they are to run once only.
            gates: Gates of the branches, as far as they are known; others read later.
        """
        trees = None if texts is None else [text_tree(of_prompt) for of_prompt in texts]
        n_behind = max((len(tree.tokens) for tree in trees or ()), default=0)
        columns = prompt_columns(model, rows)
        masks = edit_masks(model, columns, specs)
        first = first_edited(masks, columns.n_prompt)
        n_tail = columns.n_prompt - first + n_behind
        n_longest = columns.n_prompt + max(
            (len(t) - 1 for of_prompt in texts or () for t in of_prompt), default=0
        )
        at_least = 2 if n_branches is None else min(2, n_branches)
        as_copies = (
            first >= MIN_SHARED
            and at_least * n_tail <= MAX_COPIED
            and fits_columns(model, n_longest)
        )
        if as_copies and n_behind:
            columns = prompt_columns(model, rows, trees)
        at_once = n_branches is not None and n_branches * n_tail <= MAX_COPIED
        prefix = capture(
            model,
            columns,
            block,
            first,
            cached=not (as_copies and at_once) and first >= MIN_SHARED,
            keep_cache=texts is not None and not as_copies,
            gates=gates,
        )
        return cls(prefix, texts, trees, as_copies)

    def log_probs(self, plan: Plan) -> Float[Tensor, "batch branches vocab"]:
        """Next-token log-probs of every branch, in nats.

        Raises:
            InputError: a direction edits what has already run.
        """
        if not self.as_copies:
            logits, _ = resume_in_rows(self.prefix, plan, self.masks(plan))
            return logits.float().log_softmax(-1)
        return self._in_turns(plan, 1, lambda logits: logits[:, :, 0].float().log_softmax(-1))

    def scores(self, plan: Plan) -> list[Float[Tensor, "branches texts"]]:
        """Summed log-probs of each prompt's texts, in nats.

        Raises:
            InputError: a direction edits what has already run.
        """
        assert self.texts is not None and self.trees is not None
        if not self.as_copies:
            logits, cache = resume_in_rows(self.prefix, plan, self.masks(plan))
            assert cache is not None
            log_probs = logits.float().log_softmax(-1)
            state = State(plan, self.prefix.columns, cache, log_probs, self.prefix.amounts)
            return _scored_in_rows(state, self.texts)
        reads = [
            (list(chain(*tree.reads)), list(chain(*of_prompt)), [len(text) for text in of_prompt])
            for tree, of_prompt in zip(self.trees, self.texts, strict=True)
        ]

        def score(logits: Tensor) -> Tensor:
            totals = normaliser(logits)
            each = []
            for row, (positions, targets, lengths) in enumerate(reads):
                log_probs = logits[row][:, positions, targets].float()
                log_probs = log_probs - totals[row][:, positions]
                parts = [part.sum(-1) for part in log_probs.split(lengths, dim=-1)]
                each.append(torch.stack(parts, dim=-1))
            width = max(part.shape[-1] for part in each)
            pad = torch.nn.functional.pad
            return torch.stack([pad(part, (0, width - part.shape[-1])) for part in each])

        n_read = self.prefix.columns.tokens.shape[1] - self.prefix.columns.n_prompt + 1
        padded = self._in_turns(plan, n_read, score)
        return [row[:, : len(of_prompt)] for row, of_prompt in zip(padded, self.texts, strict=True)]

    def _in_turns(
        self, plan: Plan, n_read: int, reduce: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch branches *result"]:
        """What ``reduce`` makes of the logits from the prompts' last column on."""
        columns, first = self.prefix.columns, self.prefix.first
        read = torch.arange(n_read, device=columns.tokens.device) + columns.n_prompt - 1 - first
        per_turn = max(1, MAX_COPIED // (columns.tokens.shape[1] - first) - 1)
        results = []
        # Without branches the base still runs, and it runs beside those of each turn.
        for start in range(0, max(1, len(plan.branches)), per_turn):
            turn = plan
            if len(plan.branches) > per_turn:
                turn = Plan(plan.model, plan.branches[start : start + per_turn])
            results.append(reduce(self._turn(turn, read))[:, bool(start) :])
        return torch.cat(results, dim=1)

    def _turn(
        self, plan: Plan, read: Int[Tensor, " read"]
    ) -> Float[Tensor, "batch branches read vocab"]:
        """Logits of every branch, none of them touched by what is not a number in another."""
        logits = resume_in_columns(self.prefix, plan, self.masks(plan), read)
        if not plan.branches or not bool(logits.isnan().any()):
            return logits
        # A masked key weighs zero, but zero times NaN is NaN: branches that overflow run alone.
        base = Plan(plan.model, [])
        alone = [resume_in_columns(self.prefix, base, self.masks(base), read)]
        for branch in plan.branches:
            single = Plan(plan.model, [branch])
            alone.append(resume_in_columns(self.prefix, single, self.masks(single), read)[:, 1:])
        return torch.cat(alone, dim=1)

    def masks(self, plan: Plan) -> Masks:
        """The columns that each of a plan's position specs edits.

        Raises:
            InputError: a direction edits what has already run.
        """
        prefix = self.prefix
        if plan.first_wide_block < prefix.block:
            raise InputError(
                f"these prompts were captured up to block {prefix.block - 1}, but a direction "
                "edits an earlier site: capture them for that site"
            )
        masks = edit_masks(prefix.model, prefix.columns, plan.specs)
        for spec, mask in masks.items():
            if bool(mask[:, : prefix.first].any()):
                raise InputError(
                    f"these prompts were captured for later positions than {spec!r}: capture them "
                    "for these"
                )
        unread = [gate for gate in plan.gates if gate not in prefix.amounts]
        prefix.amounts.update(amounts_of(prefix.model, prefix.columns, unread))
        return gated(masks, plan, prefix.amounts)


def _scored_in_rows(state: State, texts: list[Texts]) -> list[Float[Tensor, "branches texts"]]:
    """Summed log-probs of each prompt's texts, each of them a row behind the cached prompt."""
    device = state.log_probs.device
    n_branches = state.plan.n_branches
    owner = torch.tensor([i for i, of_prompt in enumerate(texts) for _ in of_prompt], device=device)
    flat = [tokens for of_prompt in texts for tokens in of_prompt]
    longest = max(map(len, flat))
    padded = torch.tensor([t + [0] * (longest - len(t)) for t in flat], device=device)
    real = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in flat], device=device)
    # [texts, branches]: the first token is read from the prompt's own last position.
    first = padded[:, :1].unsqueeze(1).expand(-1, n_branches, -1)
    total = state.log_probs[owner].gather(2, first)[..., 0]
    if longest > 1:
        log_probs = extend(select_rows(state, owner), padded[:, :-1], real[:, :-1])
        following = padded[:, 1:].unsqueeze(1).unsqueeze(-1).expand(-1, n_branches, -1, -1)
        each = log_probs.gather(3, following).squeeze(-1)
        total = total + (each * real[:, 1:].unsqueeze(1)).sum(-1)
    return list(total.T.split(list(map(len, texts)), dim=1))


def longest(rows: Sequence[list[int]], texts: Sequence[Texts] | None) -> int:
    """Columns of the longest prompt with all its texts side by side."""
    behind = [[]] * len(rows) if texts is None else texts
    return max(
        len(row) + sum(map(len, of_prompt)) for row, of_prompt in zip(rows, behind, strict=True)
    )


def pack_costs(
    model: TransformerBridge,
    rows: Sequence[list[int]],
    texts: Sequence[Texts] | None,
    specs: Sequence[str],
    n_branches: int,
) -> list[int]:
    """Roughly how many tokens each prompt runs above the site, logits counted as tokens too."""
    kinds = [parse_positions(spec) for spec in specs]
    shares = all(kind.kind in ("answer", "generated", "last") for kind in kinds)
    costs = []
    for i, row in enumerate(rows):
        n_behind = len(text_tree(texts[i]).tokens) if texts is not None else 0
        n_tail = max(1, *(kind.count for kind in kinds)) if shares else len(row)
        copied = n_branches * (n_tail + n_behind)
        costs.append(len(row) + copied + logit_cost(model, n_branches * (1 + n_behind)))
    return costs
