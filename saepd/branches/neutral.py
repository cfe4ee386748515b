"""What steering does to text that has nothing to do with the feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.plan import Branch
from saepd.branches.run import branch, score_continuations
from saepd.merge.disagreement import kl_from_base

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# How the neutral prompts go on.
NEUTRAL_CONTINUATIONS = (
    "half past seven and reaches the harbour before noon.",
    "rest in a warm place for an hour.",
    "the old railway station last spring.",
    "screws at the back and lift the cover off.",
    "turned back to the harbour one after the other.",
    "a dry room on the second floor.",
    "three equal angles as well.",
    "went out into the garden to think.",
)


class SideEffects(NamedTuple):
    """Of one branch, over neutral prompts.

    Attributes:
        kl: Mean KL of the branch's next token from the base's, KL(base || branch), nats.
        perplexity_ratio: Perplexity of the prompts' plain continuations under the branch over that
            under the base; 1 if nothing changed.
    """

    kl: float
    perplexity_ratio: float


def side_effects(model: TransformerBridge, branches: Sequence[Branch]) -> list[SideEffects]:
    """Measure every branch on neutral text.

    Raises:
        InputError: as `saepd.branch`.
    """
    kl = kl_to_base(branch(model, NEUTRAL_PROMPTS, branches))
    scored = score_continuations(
        model, NEUTRAL_PROMPTS, [[text] for text in NEUTRAL_CONTINUATIONS], branches
    )
    total = torch.stack([scores[:, 0] for scores, _ in scored]).double().sum(0)
    per_token = (total[0] - total[1:]) / sum(lengths[0] for _, lengths in scored)
    return [
        SideEffects(float(k), float(ratio)) for k, ratio in zip(kl, per_token.exp(), strict=True)
    ]


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


def kl_to_base(
    log_probs: Float[Tensor, "batch branches vocab"],
) -> Float[Tensor, " steered"]:
    """Mean over prompts of KL(base || branch) for every steered branch, in nats."""
    return kl_from_base(log_probs).mean(0)
