"""How strongly a direction acts: the largest coefficient that leaves neutral text nearly alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.checks import check_number
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
        budget: Nats that the next token after neutral prompts may move, on average; positive.
        prompts: Texts that have nothing to do with the feedback.

    Raises:
        InputError: a budget that is not positive, one that even the smallest coefficient of a
            direction exceeds, or one that even the largest does not reach.
    """
    directions = as_directions(directions)
    factors = _largest(model, [[d.scaled(1.0)] for d in directions], budget, prompts)
    return [d.scaled(factor) for d, factor in zip(directions, factors, strict=True)]


def scale_to_kl(
    model: TransformerBridge,
    together: Directions,
    budget: float,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> list[Direction]:
    """Multiply all directions of one branch by the largest factor whose KL is within a budget.

    As `fit_kl_budget`, but the directions act together and keep their shares of the whole.

    Raises:
        InputError: as `fit_kl_budget`, with factors for coefficients.
    """
    together = as_directions(together)
    [factor] = _largest(model, [together], budget, prompts)
    return [factor * direction for direction in together]


def _largest(
    model: TransformerBridge,
    branches: Sequence[Sequence[Direction]],
    budget: float,
    prompts: Sequence[str],
) -> list[float]:
    """For each branch, the largest factor of its directions that keeps within the budget."""
    check_number("the KL budget", budget, above=0)
    coarse = _within(model, branches, [_GRID] * len(branches), budget, prompts)
    for together, n in zip(branches, coarse, strict=True):
        what = f"direction {' + '.join(d.perspective for d in together)!r}"
        if n == 0:
            raise InputError(
                f"{what}: even a coefficient of {_GRID[0]} exceeds the KL budget of {budget} nats: "
                "raise the budget"
            )
        if n == len(_GRID):
            raise InputError(
                f"{what} does next to nothing: even a coefficient of {_GRID[-1]:g} stays within "
                f"the KL budget of {budget} nats; set a coefficient instead of a budget, or look "
                "whether the feedback differs at all"
            )
    low = [_GRID[n - 1] for n in coarse]
    step = 2.0 ** (1 / (_REFINED + 1))
    finer = [[c * step**i for i in range(_REFINED + 1)] for c in low]
    n_finer = _within(model, branches, finer, budget, prompts)
    # The first of the finer ones was within the budget a moment ago.
    return [factors[max(1, n) - 1] for factors, n in zip(finer, n_finer, strict=True)]


def _within(
    model: TransformerBridge,
    branches: Sequence[Sequence[Direction]],
    factors: Sequence[Sequence[float]],
    budget: float,
    prompts: Sequence[str],
) -> list[int]:
    """For each branch, how many of its factors in a row keep within the budget."""
    scaled = [
        [factor * direction for direction in together]
        for together, its_factors in zip(branches, factors, strict=True)
        for factor in its_factors
    ]
    # Written so that NaN, which half precision overflows to, is over the budget too.
    over = ~(kl_to_base(branch(model, prompts, scaled)) <= budget)
    groups = over.split(list(map(len, factors)))
    return [int(g.int().argmax()) if bool(g.any()) else len(g) for g in groups]
