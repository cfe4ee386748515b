"""How strongly a direction acts: the largest coefficient that leaves neutral text nearly alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.direction import Direction

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


# Coefficients tried at once: every one is a branch over the same captured prefix.
_GRID = [2.0**i for i in range(-6, 9)]
_REFINED = 8


def fit_kl_budget(
    model: TransformerBridge,
    directions: Directions,
    budget: float,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> list[Direction]:
    """Give each direction the largest coefficient whose mean KL to the base is within a budget.

    The KL is of the next token after neutral prompts. All directions at coefficients from 1/64 to
    256 run as branches of one pass; a second pass refines the interval in which each of them
    crosses the budget, to within a factor of 2^(1/9).

    Args:
        model: The language model.
        directions: One direction or several, or a fit; their own coefficients are replaced.
        budget: Nats; positive.
        prompts: Texts that have nothing to do with the feedback.

    Raises:
        InputError: a budget that is not positive, one that even the smallest coefficient of a
            direction exceeds, or one that even the largest does not reach.
    """
    directions = as_directions(directions)
    if not budget > 0:
        raise InputError(f"the KL budget is {budget}: it must be positive")
    coarse = _within(model, directions, [_GRID] * len(directions), budget, prompts)
    for direction, n in zip(directions, coarse, strict=True):
        if n == 0:
            raise InputError(
                f"direction {direction.perspective!r}: even a coefficient of {_GRID[0]} exceeds "
                f"the KL budget of {budget} nats: raise the budget"
            )
        if n == len(_GRID):
            raise InputError(
                f"direction {direction.perspective!r} does next to nothing: even a coefficient of "
                f"{_GRID[-1]:g} stays within the KL budget of {budget} nats; set a coefficient "
                "instead of a budget, or look whether the feedback differs at all"
            )
    low = [_GRID[n - 1] for n in coarse]
    step = 2.0 ** (1 / (_REFINED + 1))
    finer = [[c * step**i for i in range(_REFINED + 1)] for c in low]
    n_finer = _within(model, directions, finer, budget, prompts)
    return [
        # The first of the finer ones was within the budget a moment ago.
        direction.scaled(tried[max(1, n) - 1])
        for direction, tried, n in zip(directions, finer, n_finer, strict=True)
    ]


def _within(
    model: TransformerBridge,
    directions: Sequence[Direction],
    coefficients: Sequence[Sequence[float]],
    budget: float,
    prompts: Sequence[str],
) -> list[int]:
    """For each direction, how many of its coefficients in a row keep within the budget."""
    branches = [
        direction.scaled(c)
        for direction, tried in zip(directions, coefficients, strict=True)
        for c in tried
    ]
    # Written so that NaN, which half precision overflows to, is over the budget too.
    over = ~(kl_to_base(branch(model, prompts, branches)) <= budget)
    groups = over.split([len(tried) for tried in coefficients])
    return [int(g.int().argmax()) if bool(g.any()) else len(g) for g in groups]
