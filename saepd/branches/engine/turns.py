"""Scores and gradients of all texts of a pack, from copies that run as many at a time as fit.

Rows run together that are about as wide, so little of what runs is padding. A prompt with many
vectors has several rows, since side by side its copies would be far wider than others'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.branches.engine.forest import Copy, Forest
from saepd.branches.engine.pack import MAX_COPIED, Pack
from saepd.branches.engine.prefix import chosen_rows
from saepd.branches.engine.texts import TextTree
from saepd.models.batching import logit_cost, packs, token_budget

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

Vectors: TypeAlias = Float[Tensor, "vectors sites d_model"]
Mask: TypeAlias = Bool[Tensor, "batch columns"]
ScoresAndGradients: TypeAlias = tuple[
    Float[Tensor, "vectors texts"], Float[Tensor, "vectors texts sites d_model"]
]

# What the gradients of one turn may keep, in bytes.
_ENOUGH = 2**31
# How many columns of its own a row has at least, where there are copies, for each that it shares.
_SHARE_OF_SHARED = 0.125


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
    pack: Pack, vectors: Sequence[Vectors], sites: Sequence[HookPoint], mask: Mask
) -> list[ScoresAndGradients]:
    """Scores of each prompt's texts under its vectors, and their gradients by these.

    Args:
        pack: Prompts whose branches are copies of columns, with texts.
        vectors: Vectors of each prompt; prompts may have different numbers of them.
        sites: Where they are added.
        mask: The columns that they are added to.
    """
    assert pack.trees is not None
    copies = copies_for_least_work(_n_tail(pack), pack.trees, list(map(len, vectors)))
    return _run(pack, vectors, copies, sites, mask, with_gradients=True)


def pack_scores(
    pack: Pack, vectors: Sequence[Vectors], sites: Sequence[HookPoint], mask: Mask
) -> list[Float[Tensor, "vectors texts"]]:
    """The scores of `pack_gradients`, without gradients."""
    assert pack.texts is not None
    copies = [
        [Copy(vector, list(range(len(texts)))) for vector in range(len(of_prompt))]
        for of_prompt, texts in zip(vectors, pack.texts, strict=True)
    ]
    with torch.inference_mode():
        results = _run(pack, vectors, copies, sites, mask, with_gradients=False)
    return [scores for scores, _ in results]


def _run(
    pack: Pack,
    vectors: Sequence[Vectors],
    copies: Sequence[Sequence[Copy]],
    sites: Sequence[HookPoint],
    mask: Mask,
    *,
    with_gradients: bool,
) -> list[ScoresAndGradients]:
    """Scores of copies, and their gradients if wanted, in turns of prompts that are as wide."""
    assert pack.texts is not None
    sizes = [
        (len(of_prompt), len(texts)) for of_prompt, texts in zip(vectors, pack.texts, strict=True)
    ]
    results = [
        (torch.empty(size), torch.empty(*size, *of_prompt.shape[1:]))
        for size, of_prompt in zip(sizes, vectors, strict=True)
    ]

    def run(rows: list[int], now: list[Sequence[Copy]]) -> None:
        scores, gradients = _turn(pack, vectors, rows, now, sites, mask, with_gradients)
        if bool(scores.isnan().any()) and max(map(len, now)) > 1:
            # A masked key weighs zero, but zero times NaN is NaN: each copy runs alone.
            for number in range(max(map(len, now))):
                some = [i for i, its_copies in enumerate(now) if number < len(its_copies)]
                run([rows[i] for i in some], [now[i][number : number + 1] for i in some])
            return
        for i, (row, its_copies) in enumerate(zip(rows, now, strict=True)):
            for copy, (vector, texts) in enumerate(its_copies):
                results[row][0][vector, texts] = scores[i, copy, : len(texts)]
                if gradients is not None:
                    results[row][1][vector, texts] = gradients[i, copy, : len(texts)]

    for rows, now in _turns(pack, copies, with_gradients):
        run(rows, now)
    return results


def _turns(
    pack: Pack, copies: Sequence[Sequence[Copy]], with_gradients: bool
) -> Iterator[tuple[list[int], list[Sequence[Copy]]]]:
    """Rows of about the same width that run together: of each its prompt, and its copies."""
    model = pack.prefix.model
    at_once = _columns_at_once(model) if with_gradients else token_budget(model)
    rows = _rows(pack, copies, min(at_once, MAX_COPIED))
    # Nearly each column of a copy is read.
    costs = [row.width + (0 if with_gradients else logit_cost(model, row.width)) for row in rows]
    # Each row takes the keys and values of the columns that its copies share along.
    n_rows = max(1, token_budget(model) // max(1, pack.prefix.done))
    for chosen in packs(costs, at_once):
        for start in range(0, len(chosen), n_rows):
            now = [rows[i] for i in sorted(chosen[start : start + n_rows])]
            yield [row.prompt for row in now], [row.copies for row in now]


class _Row(NamedTuple):
    """Some copies of one prompt, side by side.

    Attributes:
        prompt: Index of the prompt.
        copies: The copies.
        width: How many columns the copies have.
    """

    prompt: int
    copies: list[Copy]
    width: int


def _rows(pack: Pack, copies: Sequence[Sequence[Copy]], widest: int) -> list[_Row]:
    """Copies in rows as wide as any prompt's are for one vector, but no wider than a limit.

    Where much is shared, rows are wider, so that it is not taken along for few columns.
    """
    assert pack.trees is not None
    n_tail = _n_tail(pack)
    widths = [
        [_width(n_tail, tree, copy) for copy in its_copies]
        for tree, its_copies in zip(pack.trees, copies, strict=True)
    ]
    of_one_vector = [
        sum(
            w
            for w, copy in zip(of_prompt, its_copies, strict=True)
            if copy.vector == its_copies[0].vector
        )
        for of_prompt, its_copies in zip(widths, copies, strict=True)
    ]
    wide = max(*of_one_vector, int(_SHARE_OF_SHARED * pack.prefix.done), 0)
    rows: list[_Row] = []
    for prompt, (of_prompt, its_copies) in enumerate(zip(widths, copies, strict=True)):
        now = _Row(prompt, [], 0)
        for width, copy in zip(of_prompt, its_copies, strict=True):
            if now.copies and now.width + width > min(wide, widest):
                rows.append(now)
                now = _Row(prompt, [], 0)
            now = _Row(prompt, [*now.copies, copy], now.width + width)
        if now.copies:
            rows.append(now)
    return rows


def _turn(
    pack: Pack,
    vectors: Sequence[Vectors],
    rows: list[int],
    copies: list[Sequence[Copy]],
    sites: Sequence[HookPoint],
    mask: Mask,
    with_gradients: bool,
) -> tuple[Float[Tensor, "rows copies texts"], Tensor | None]:
    """Scores of some prompts' copies and texts, and their gradients if wanted."""
    assert pack.trees is not None and pack.texts is not None
    prefix = chosen_rows(pack.prefix, rows)
    trees, texts = [pack.trees[row] for row in rows], [pack.texts[row] for row in rows]
    forest = Forest.grow(prefix.columns, prefix.first, trees, texts, copies)
    padded = torch.zeros(len(rows), forest.shape[0], *vectors[rows[0]].shape[1:])
    for i, (row, its_copies) in enumerate(zip(rows, copies, strict=True)):
        padded[i, : len(its_copies)] = vectors[row][[copy.vector for copy in its_copies]]
    own_vectors = padded.to(prefix.columns.tokens.device).requires_grad_(with_gradients)
    scores = forest.scores(prefix, own_vectors, sites, mask[rows])
    if not with_gradients:
        return scores.cpu(), None
    return scores.detach().cpu(), gradients_of_scores(scores, own_vectors)


def _n_tail(pack: Pack) -> int:
    """How many of a prompt's own columns are copied."""
    return pack.prefix.columns.n_prompt - pack.prefix.first


def copies_for_least_work(
    n_tail: int, trees: Sequence[TextTree], n_vectors: Sequence[int]
) -> list[list[Copy]]:
    """The copies that give each text's gradient at each vector of its prompt for least work.

    Either each text has a copy of its own, which runs forward and backward once. Or all texts of a
    prompt share a copy, which runs forward once, and backward once for each of them.

    Args:
        n_tail: How many of a prompt's own columns are copied.
        trees: The tree of each prompt's texts.
        n_vectors: How many vectors each prompt has.
    """
    texts = [list(range(len(tree.reads))) for tree in trees]
    together = [
        [Copy(v, its_texts) for v in range(n)]
        for its_texts, n in zip(texts, n_vectors, strict=True)
    ]
    apart = [
        [Copy(c.vector, [text]) for c in its_copies for text in c.texts] for its_copies in together
    ]
    passes = 1 + max(map(len, texts))
    less = passes * _n_columns(n_tail, trees, together) < 2 * _n_columns(n_tail, trees, apart)
    return together if less else apart


def _n_columns(n_tail: int, trees: Sequence[TextTree], copies: Sequence[Sequence[Copy]]) -> int:
    """How many columns all copies of all prompts have."""
    both = zip(trees, copies, strict=True)
    return sum(_width(n_tail, tree, copy) for tree, its_copies in both for copy in its_copies)


def _width(n_tail: int, tree: TextTree, copy: Copy) -> int:
    """How many columns a copy has."""
    return n_tail - 1 + len({column for text in copy.texts for column in tree.reads[text]})


def _columns_at_once(model: TransformerBridge) -> int:
    """How many columns may keep what their gradients need."""
    weight = next(model.original_model.parameters())
    inner = int(getattr(model.cfg, "d_mlp", 0) or 4 * model.cfg.d_model)
    of_blocks = int(model.cfg.n_layers) * (8 * int(model.cfg.d_model) + 4 * inner)
    return max(1, _ENOUGH // (weight.element_size() * of_blocks + 16 * int(model.cfg.d_vocab)))
