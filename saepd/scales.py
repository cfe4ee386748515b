"""How strongly a direction acts: the largest coefficient that leaves neutral text nearly alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float

from saepd.branches import branch
from saepd.directions import Direction
from saepd.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

NEUTRAL_PROMPTS = (
    "The train to the coast leaves every morning at",
    "Mix the flour with the water, then let the dough",
    "The museum opened its new hall of clocks in",
    "To replace the battery, first loosen the two",
    "In the afternoon the wind turned and the boats",
    "The library keeps its oldest maps in",
    "A triangle with three equal sides has",
    "She folded the letter, put it into the drawer and",
)

# Coefficients tried at once: every one is a branch over the same captured prefix.
_GRID = [2.0**i for i in range(-6, 9)]
_REFINED = 8


def kl_to_base(
    log_probs: Float[Tensor, "batch branches vocab"],
) -> Float[Tensor, " steered"]:
    """Mean over prompts of KL(base || branch) for every steered branch, in nats."""
    base, steered = log_probs[:, :1], log_probs[:, 1:]
    return (base.exp() * (base - steered)).sum(-1).mean(0)


def fit_kl_budget(
    model: TransformerBridge,
    direction: Direction,
    budget: float,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> float:
    """Largest coefficient up to which the mean KL to the base stays within a budget.

    The KL is of the next token after neutral prompts. Coefficients from 1/64 to 256 are tried as
    branches of one pass, then the interval in which the budget is crossed is refined.

    Args:
        model: The language model.
        direction: Its own coefficient is replaced by those tried.
        budget: Nats; positive.
        prompts: Texts that have nothing to do with the feedback.

    Raises:
        InputError: a budget that is not positive, or one that even the smallest coefficient
            exceeds.
    """
    if not budget > 0:
        raise InputError(f"the KL budget is {budget}: it must be positive")

    def within(coefficients: list[float]) -> int:
        """How many coefficients in a row, from the smallest, keep within the budget."""
        branches = [direction.scaled(c) for c in coefficients]
        over = (kl_to_base(branch(model, prompts, branches)) > budget).tolist()
        return over.index(True) if True in over else len(over)

    n_within = within(_GRID)
    if n_within == 0:
        raise InputError(
            f"direction {direction.perspective!r}: even a coefficient of {_GRID[0]} exceeds the KL "
            f"budget of {budget} nats: raise the budget"
        )
    low = _GRID[n_within - 1]
    if n_within == len(_GRID):
        return low
    step = 2.0 ** (1 / (_REFINED + 1))
    finer = [low * step**i for i in range(1, _REFINED + 1)]
    n_finer = within(finer)
    return finer[n_finer - 1] if n_finer else low
