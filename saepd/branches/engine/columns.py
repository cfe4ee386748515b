"""Where the tokens of a batch stand: prompts, the texts that may follow them, and their branches.

A prompt and its possible continuations need not be separate rows. The continuations stand behind
the prompt as further columns of its row, each of which sees the prompt and the earlier tokens of
its own text, and no other text. Texts that begin alike share columns (`engine.texts`). From
the lowest edited site on, the columns from the first edited one on are there K+1 times, once for
each branch, and see only their own branch. So whatever the branches share is computed once, and
each weight of the model is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saepd.branches.engine.texts import TextTree
from saepd.models.tokens import padding_id
from saepd.models.windows import attention_windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# What every later column continues.
NEVER = 2**62


@dataclass(frozen=True)
class Columns:
    """Left-padded prompts, and behind each of them the texts that may follow it.

    Attributes:
        tokens: Ids; padding holds one that the embedding has a row for.
        real: Whether a column holds a token.
        until: The first column behind each that does not continue it; ``NEVER`` for the prompt's.
        n_prompt: Columns of the prompts; the rest are the texts'.
    """

    tokens: Int[Tensor, "batch columns"]
    real: Bool[Tensor, "batch columns"]
    until: Int[Tensor, "batch columns"]
    n_prompt: int

    @property
    def attention(self) -> Int[Tensor, "batch prompt"]:
        """1 where a prompt's column holds a token."""
        return self.real[:, : self.n_prompt].long()

    @property
    def position_ids(self) -> Int[Tensor, "batch columns"]:
        """Position of each token in its own text, counted from the prompt's first token."""
        if self.n_prompt == self.tokens.shape[1]:
            # No texts stand side by side, so that counting is enough, and cheap for each token.
            return (self.real.cumsum(-1) - 1).clamp(min=0)
        seen = self.visible & self.real.unsqueeze(1)
        return (seen.sum(-1) - 1).clamp(min=0)

    @property
    def visible(self) -> Bool[Tensor, "batch query key"]:
        """Which column sees which: the prompt's earlier ones, and earlier ones of its own text."""
        n = self.tokens.shape[1]
        column = torch.arange(n, device=self.tokens.device)
        causal = column <= column.unsqueeze(1)
        continued = self.until.unsqueeze(1) > column.unsqueeze(1)
        return causal & continued & self.real.unsqueeze(1)


@dataclass(frozen=True)
class Tails:
    """Columns of a row in which every branch has its own copy of the columns from ``first`` on.

    Attributes:
        first: Columns before this one are the same for all branches.
        done: Columns whose keys and values are cached; those from here on are run.
        n_columns: All columns of the row.
        n_branches: K+1.
    """

    first: int
    done: int
    n_columns: int
    n_branches: int

    @property
    def n_tail(self) -> int:
        """Columns of one branch's own copy."""
        return self.n_columns - self.first

    def source(self, device: torch.device) -> tuple[Int[Tensor, " wide"], Int[Tensor, " wide"]]:
        """The column that each of the wide row's columns copies, and its branch (-1 if shared)."""
        shared = torch.arange(self.done, self.first, device=device)
        tail = torch.arange(self.first, self.n_columns, device=device)
        branch = torch.arange(self.n_branches, device=device)
        return (
            torch.cat([shared, tail.repeat(self.n_branches)]),
            torch.cat([torch.full_like(shared, -1), branch.repeat_interleave(self.n_tail)]),
        )

    def visible(
        self, columns: Bool[Tensor, "batch query key"]
    ) -> Bool[Tensor, "batch wide cached_and_wide"]:
        """Which wide column sees which: as in ``columns``, but no other branch's copies."""
        source, branch = self.source(columns.device)
        cached = torch.arange(self.done, device=columns.device)
        keys = torch.cat([cached, source])
        branch_of_key = torch.cat([torch.full_like(cached, -1), branch])
        same_branch_or_shared = (branch_of_key == -1) | (branch_of_key == branch.unsqueeze(1))
        return columns[:, source][:, :, keys] & same_branch_or_shared

    def split(
        self, h: Float[Tensor, "batch wide d_model"]
    ) -> tuple[Float[Tensor, "batch shared d_model"], Float[Tensor, "batch branches tail d_model"]]:
        """The shared columns, and every branch's own ones."""
        n_shared = self.first - self.done
        return h[:, :n_shared], h[:, n_shared:].unflatten(1, (self.n_branches, self.n_tail))


def prompt_columns(
    model: TransformerBridge,
    rows: Sequence[list[int]],
    trees: Sequence[TextTree] | None = None,
) -> Columns:
    """Lay prompts out as left-padded columns, with the texts that may follow each behind it.

    Args:
        model: The language model.
        rows: Token ids of each prompt.
        trees: The tree of each prompt's texts, which may be empty.
    """
    n_prompt = max(map(len, rows))
    n = n_prompt + max((len(tree.tokens) for tree in trees or ()), default=0)
    tokens = torch.full((len(rows), n), padding_id(model))
    real = torch.zeros(len(rows), n, dtype=torch.bool)
    until = torch.full((len(rows), n), NEVER)
    for i, row in enumerate(rows):
        tokens[i, n_prompt - len(row) : n_prompt] = torch.tensor(row)
        real[i, n_prompt - len(row) : n_prompt] = True
    for i, tree in enumerate(trees or ()):
        behind = slice(n_prompt, n_prompt + len(tree.tokens))
        tokens[i, behind] = torch.tensor(tree.tokens, dtype=torch.long)
        real[i, behind] = True
        until[i, behind] = n_prompt + torch.tensor(tree.until, dtype=torch.long)
    device = next(model.original_model.parameters()).device
    return Columns(tokens.to(device), real.to(device), until.to(device), n_prompt)


def additive(
    visible: Bool[Tensor, "batch query key"], dtype: torch.dtype
) -> Float[Tensor, "batch 1 query key"]:
    """A mask in the form that every attention implementation adds to its scores."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min).unsqueeze(1)


def fits_columns(model: TransformerBridge, n_tokens: int) -> bool:
    """Whether this model can read texts of ``n_tokens`` that stand side by side in a row.

    It can where a token's position is given (learned or rotary), and where no block looks at a
    window that is shorter than the text, since a window is counted in columns.
    """
    hf_model: Any = model.original_model
    config = hf_model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        model.cfg.positional_embedding_type in ("standard", "rotary")
        and kinds <= {"full_attention", "sliding_attention"}
        and all(n_tokens <= window for window in attention_windows(hf_model))
    )
