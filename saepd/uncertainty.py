"""How much the branches disagree, read off distributions that are already there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor


def branch_disagreement(
    branches: Float[Tensor, "*batch branches vocab"],
) -> Float[Tensor, "*batch"]:
    """Generalised Jensen-Shannon divergence of the branches: H(mean of p_i) - mean of H(p_i).

    All branches weigh the same (Lin 1991, eq. 5.1). In nats, from 0 (all the same) to the log of
    the number of branches (no option shared); it does not change when branches are reordered.

    Args:
        branches: Log-probs in nats.
    """
    import torch

    p = branches.double().exp()
    mean = p.mean(-2)
    return (torch.special.entr(mean).sum(-1) - torch.special.entr(p).sum(-1).mean(-1)).clamp(min=0)
