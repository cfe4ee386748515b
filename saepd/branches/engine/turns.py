"""Gradients of all texts of a pack, from copies that run as many at a time as memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.branches.engine.forest import Copy, Forest
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.texts import TextTree

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

ScoresAndGradients: TypeAlias = tuple[
    Float[Tensor, "vectors texts"], Float[Tensor, "vectors texts sites d_model"]
]

# What the gradients of one turn may keep, in bytes.
_ENOUGH = 2**31


def gradients_of_scores(
    scores: Float[Tensor, "batch copies texts"],
    vectors: Float[Tensor, "batch copies sites d_model"],
) -> Float[Tensor, "batch copies texts sites d_model"]:
    """The gradient of each score by the vectors of its own copy."""
    each = [
        torch.autograd.grad(scores[..., text].sum(), vectors, retain_graph=True)[0].cpu()
        for text in range(scores.shape[-1])
    ]
    return torch.stack(each, dim=2)


def pack_gradients(
    pack: Pack,
    vectors: Float[Tensor, "batch vectors sites d_model"],
    n_vectors: Sequence[int],
    sites: Sequence[HookPoint],
    mask: Bool[Tensor, "batch columns"],
) -> list[ScoresAndGradients]:
    """Scores of each prompt's texts under its vectors, and their gradients by these.

    Args:
        pack: Prompts whose branches are copies of columns, with texts.
        vectors: Of each prompt, those of prompts with fewer padded.
        n_vectors: How many of them each prompt has.
        sites: Where they are added.
        mask: The columns that they are added to.
    """
    assert pack.trees is not None
    n_tail = pack.prefix.columns.n_prompt - pack.prefix.first
    copies = copies_for_least_work(n_tail, pack.trees, n_vectors)
    most = max(map(len, copies))
    n_columns = len(copies) * max(_widths(n_tail, pack.trees, copies))
    n_turns = min(most, -(-n_columns // _columns_at_once(pack.prefix.model)))
    found = _run(pack, vectors, n_vectors, copies, n_turns, sites, mask)
    if n_turns < most and any(bool(scores.isnan().any()) for scores, _ in found):
        # A masked key weighs zero, but zero times NaN is NaN: each copy runs alone.
        found = _run(pack, vectors, n_vectors, copies, most, sites, mask)
    return found


def _run(
    pack: Pack,
    vectors: Float[Tensor, "batch vectors sites d_model"],
    n_vectors: Sequence[int],
    copies: Sequence[Sequence[Copy]],
    n_turns: int,
    sites: Sequence[HookPoint],
    mask: Bool[Tensor, "batch columns"],
) -> list[ScoresAndGradients]:
    assert pack.trees is not None and pack.texts is not None
    sizes = [(n, len(texts)) for n, texts in zip(n_vectors, pack.texts, strict=True)]
    found = [(torch.empty(size), torch.empty(*size, *vectors.shape[2:])) for size in sizes]
    rows = torch.arange(len(copies)).unsqueeze(1)
    for turn in range(n_turns):
        now = [own[len(own) * turn // n_turns : len(own) * (turn + 1) // n_turns] for own in copies]
        forest = Forest.grow(pack.prefix.columns, pack.prefix.first, pack.trees, pack.texts, now)
        index = [[c.vector for c in own] + [0] * (forest.shape[0] - len(own)) for own in now]
        own_vectors = vectors[rows, torch.tensor(index)].detach().requires_grad_()
        scores = forest.scores(pack.prefix, own_vectors, sites, mask)
        gradients = gradients_of_scores(scores, own_vectors)
        scores = scores.detach().cpu()
        for row, own in enumerate(now):
            for copy, (vector, texts) in enumerate(own):
                found[row][0][vector, texts] = scores[row, copy, : len(texts)]
                found[row][1][vector, texts] = gradients[row, copy, : len(texts)]
    return found


def copies_for_least_work(
    n_tail: int, trees: Sequence[TextTree], n_vectors: Sequence[int]
) -> list[list[Copy]]:
    """The copies that give each text's gradient at each vector of its prompt for least work.

    Either each text has a copy of its own, which runs forward and backward once. Or all texts of a
    prompt share a copy, which runs forward once, and backward once for each of them.

    Args:
        n_tail: How many of a prompt's own columns are copied.
        trees: Of each prompt's texts.
        n_vectors: Of each prompt.
    """
    texts = [list(range(len(tree.reads))) for tree in trees]
    together = [[Copy(v, own) for v in range(n)] for own, n in zip(texts, n_vectors, strict=True)]
    apart = [[Copy(c.vector, [text]) for c in own for text in c.texts] for own in together]
    passes = 1 + max(map(len, texts))
    less = passes * sum(_widths(n_tail, trees, together)) < 2 * sum(_widths(n_tail, trees, apart))
    return together if less else apart


def _widths(n_tail: int, trees: Sequence[TextTree], copies: Sequence[Sequence[Copy]]) -> list[int]:
    """How many columns all of each prompt's copies have."""
    return [
        sum(n_tail - 1 + len({c for text in copy.texts for c in tree.reads[text]}) for copy in own)
        for tree, own in zip(trees, copies, strict=True)
    ]


def _columns_at_once(model: TransformerBridge) -> int:
    """How many columns may keep what their gradients need."""
    weight = next(model.original_model.parameters())
    inner = int(getattr(model.cfg, "d_mlp", 0) or 4 * model.cfg.d_model)
    of_blocks = int(model.cfg.n_layers) * (8 * int(model.cfg.d_model) + 4 * inner)
    return max(1, _ENOUGH // (weight.element_size() * of_blocks + 16 * int(model.cfg.d_vocab)))
