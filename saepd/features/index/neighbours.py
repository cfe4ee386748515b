"""Which latents go together: by firing at the same tokens, and by writing alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

N_NEIGHBOURS = 8
# Latents that are compared with all others at once.
_BLOCK = 256
# Tokens over which firing together is counted at most, from the beginning of the collection.
_MOST_TOKENS = 200_000


class Neighbours(NamedTuple):
    """The latents nearest to each latent, nearest first.

    Attributes:
        ids: Which they are; the latent itself is not among them.
        scores: How near each is.
    """

    ids: Int[np.ndarray, "d_sae n"]
    scores: Float[np.ndarray, "d_sae n"]


def together(
    columns: Sequence[Int[np.ndarray, " firings"]], n_tokens: int, n: int = N_NEIGHBOURS
) -> Neighbours:
    """Latents that fire at the same tokens more than chance would have it.

    The score is the correlation of firing (phi): 1 for latents that always fire together, 0 for
    independent ones.

    Args:
        columns: For each latent, the tokens at which it fires, in order.
        n_tokens: How many tokens there are.
        n: Neighbours of each latent.
    """
    n_tokens = min(n_tokens, _MOST_TOKENS)
    rows = [column[: np.searchsorted(column, n_tokens)] for column in columns]
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    fires = sparse.csr_matrix(
        (np.ones(bounds[-1], dtype=np.float32), np.concatenate(rows), bounds),
        shape=(len(rows), n_tokens),
    )
    share = np.diff(bounds) / max(1, n_tokens)
    spread = np.sqrt(share * (1 - share))
    by_token = fires.T.tocsr()

    def scores(block: slice) -> Tensor:
        both = (fires[block] @ by_token).toarray() / max(1, n_tokens)
        apart = np.outer(spread[block], spread)
        phi = (both - np.outer(share[block], share)) / np.where(apart > 0, apart, np.inf)
        return torch.from_numpy(phi.astype(np.float32))

    return _nearest(len(rows), n, scores)


def alike(decoder: Float[Tensor, "d_sae d_in"], n: int = N_NEIGHBOURS) -> Neighbours:
    """Latents whose decoder rows point the same way: by the cosine between them."""
    rows = torch.nn.functional.normalize(decoder.float(), dim=-1)
    return _nearest(len(rows), n, lambda block: rows[block] @ rows.T)


def _nearest(d_sae: int, n: int, scores: Callable[[slice], Tensor]) -> Neighbours:
    ids, values = [], []
    for start in range(0, d_sae, _BLOCK):
        block = slice(start, min(start + _BLOCK, d_sae))
        block_scores = scores(block)
        latents = torch.arange(block.start, block.stop)
        block_scores[latents - start, latents] = -torch.inf
        best = block_scores.topk(min(n, d_sae - 1), dim=-1)
        ids.append(best.indices.cpu().numpy().astype(np.int32))
        values.append(best.values.cpu().numpy().astype(np.float32))
    return Neighbours(np.concatenate(ids), np.concatenate(values))
