"""Copies of a prompt's edited columns side by side, each with some of the texts behind it.

Copies do not see each other. So the gradient of the sum of their scores has, at each copy's vector,
what that copy's scores alone say: one backward pass gives as many gradients as there are copies.
And a copy needs no other columns than those that lead to its own texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saepd.branches.engine.columns import NEVER, Columns
from saepd.branches.engine.prefix import Prefix, bypassed, cache_of
from saepd.branches.engine.running import forward, normaliser
from saepd.branches.engine.texts import TextTree

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


class Copy(NamedTuple):
    """One copy of a prompt's edited columns.

    Attributes:
        vector: Index of what is added to it.
        texts: Indices of those that stand behind it.
    """

    vector: int
    texts: list[int]


@dataclass(frozen=True)
class Forest:
    """Copies in a batch of prompts; whatever is padding points at a column that is there.

    Attributes:
        columns: The shared ones, which count as the prompts', and then every copy's own.
        source: The column before copying that each of them was.
        copy: The copy that each belongs to; 0 for the shared ones, which nothing is added to.
        read: The columns whose next token is read.
        at: Where among ``read`` each token of the copies' texts is read.
        token: Id of each of these tokens.
        text: Text that each of them is of, counted over the copies, each of which counts as many
            as the fullest.
        real: Whether each of them is a token, or padding.
        shape: Copies of the prompt that has most, and texts of the fullest copy.
    """

    columns: Columns
    source: Int[Tensor, "batch columns"]
    copy: Int[Tensor, "batch columns"]
    read: Int[Tensor, "batch read"]
    at: Int[Tensor, "batch tokens"]
    token: Int[Tensor, "batch tokens"]
    text: Int[Tensor, "batch tokens"]
    real: Bool[Tensor, "batch tokens"]
    shape: tuple[int, int]

    @classmethod
    def grow(
        cls,
        columns: Columns,
        first: int,
        trees: Sequence[TextTree],
        texts: Sequence[Sequence[list[int]]],
        copies: Sequence[Sequence[Copy]],
    ) -> Forest:
        """Lay copies out.

        Args:
            columns: Columns of the prompts, with all their texts.
            first: The first column that is copied.
            trees: How the texts of each prompt are laid out in ``columns``.
            texts: Token ids of each prompt's texts.
            copies: The copies of each prompt.
        """
        n_slots = max(len(copy.texts) for of_prompt in copies for copy in of_prompt)
        rows = [
            _lay_out(first, columns.n_prompt - 1, until, tree, row_texts, row_copies, n_slots)
            for until, tree, row_texts, row_copies in zip(
                columns.until.tolist(), trees, texts, copies, strict=True
            )
        ]
        device = columns.tokens.device
        source = _padded([row.source for row in rows], -1).to(device)
        until = _padded([row.until for row in rows], NEVER).to(device)
        text = _padded([row.text for row in rows], -1).to(device)
        there = source.clamp(min=0)
        real = columns.real.gather(1, there) & (source >= 0)
        return cls(
            Columns(columns.tokens.gather(1, there), real, until, first),
            there,
            _padded([row.copy for row in rows], 0).to(device),
            _padded([row.read for row in rows], first).to(device),
            _padded([row.at for row in rows], 0).to(device),
            _padded([row.token for row in rows], 0).to(device),
            text.clamp(min=0),
            text >= 0,
            (max(map(len, copies)), n_slots),
        )

    def scores(
        self,
        prefix: Prefix,
        vectors: Float[Tensor, "batch copies sites d_model"],
        sites: Sequence[HookPoint],
        mask: Bool[Tensor, "batch columns"],
    ) -> Float[Tensor, "batch copies texts"]:
        """Summed log-probs of each copy's texts, in nats.

        Args:
            prefix: What has run, of the columns before copying.
            vectors: What is added to each copy at each site.
            sites: None of them below the block that ``prefix`` was captured for.
            mask: The columns before copying that it is added to, none of them shared.
        """
        done, rows = prefix.done, torch.arange(len(self.read), device=self.read.device).unsqueeze(1)
        share = mask.gather(1, self.source)[:, done:].unsqueeze(-1)
        copy = self.copy[:, done:].unsqueeze(-1)
        hidden = prefix.hidden
        if hidden is not None:
            source = (self.source[:, done:] - done).unsqueeze(-1)
            hidden = hidden.take_along_dim(source.to(hidden.device), dim=1)

        def adding(site_vectors: Float[Tensor, "batch copies d_model"]) -> Any:
            def add(_site: object, _args: object, h: Tensor) -> Tensor:
                pushed = site_vectors.to(h).take_along_dim(copy.to(h.device), dim=1)
                return h + pushed * share.to(h)

            return add

        grown = replace(prefix, columns=self.columns, hidden=hidden)
        rest = slice(done, self.columns.tokens.shape[1])
        with ExitStack() as stack:
            stack.enter_context(bypassed(grown))
            for number, site in enumerate(sites):
                hook = adding(vectors[:, :, number])
                stack.callback(site.register_forward_hook(hook).remove)
            cache = cache_of(grown, 0, 1)
            logits = forward(grown.model, self.columns, rest, cache, read=self.read - done).float()
        log_probs = logits[rows, self.at, self.token] - normaliser(logits)[rows, self.at]
        n_copies, n_slots = self.shape
        empty = log_probs.new_zeros(len(self.read), n_copies * n_slots)
        summed = empty.scatter_add(1, self.text, log_probs.masked_fill(~self.real, 0.0))
        return summed.unflatten(1, (n_copies, n_slots))


class _Row(NamedTuple):
    """What a `Forest` holds of one prompt, without padding."""

    source: list[int]
    until: list[int]
    copy: list[int]
    read: list[int]
    at: list[int]
    token: list[int]
    text: list[int]


def _lay_out(
    first: int,
    last: int,
    until: list[int],
    tree: TextTree,
    texts: Sequence[list[int]],
    copies: Sequence[Copy],
    n_slots: int,
) -> _Row:
    row = _Row(list(range(first)), [NEVER] * first, [0] * first, [], [], [], [])
    for number, copy in enumerate(copies):
        paths = [[last + column for column in tree.reads[text]] for text in copy.texts]
        read = sorted({column for path in paths for column in path})
        copied = [*range(first, last), *read]
        start, n_read = len(row.source), len(row.read)
        row.source.extend(copied)
        row.until.extend(start + bisect_left(copied, until[column]) for column in copied)
        row.copy.extend([number] * len(copied))
        row.read.extend(range(start + last - first, start + len(copied)))
        for slot, (text, path) in enumerate(zip(copy.texts, paths, strict=True)):
            row.at.extend(n_read + read.index(column) for column in path)
            row.token.extend(texts[text])
            row.text.extend([number * n_slots + slot] * len(path))
    return row


def _padded(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "rows longest"]:
    longest = max(map(len, rows))
    padded = [[*row, *[value] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.long)
