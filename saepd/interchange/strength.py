"""The strength at every token that leaves neutral text as near to the base as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.directions.direction import Direction

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Factors tried at once: each is a branch of one pass.
_COARSE = [2.0**i for i in range(-7, 5)]
_FINE = 8


@dataclass(frozen=True)
class Refit:
    """How a strength was carried over to writing at every token.

    Attributes:
        factor: What every coefficient was multiplied by.
        kl_before: Mean KL of the next token from the base's after neutral prompts, nats, where the
            directions write as they do in saepd.
        kl_unchanged: That KL where they write at every token, at the strength as it was.
        kl_after: That KL where they write at every token, at the strength times the factor.
    """

    factor: float
    kl_before: float
    kl_unchanged: float
    kl_after: float


def at_every_token(
    model: TransformerBridge, groups: Sequence[Sequence[Direction]]
) -> list[tuple[list[Direction], Refit]]:
    """The same edits at every token and without gates, as far from neutral text as before.

    The factor is looked for between 1/128 and 8, by two passes and interpolation in logarithms.
    Directions that leave the next token after neutral prompts alone, such as those that act on
    what is generated only, keep their strength.

    Args:
        model: The language model.
        groups: The directions of each perspective, which act together.

    Raises:
        InputError: as `saepd.branch`.
    """
    before = _kl(model, [list(group) for group in groups])
    everywhere = [
        [
            replace(part, positions="every", gate=None)
            for direction in group
            for part in direction.parts
        ]
        for group in groups
    ]
    unchanged = _kl(model, everywhere)
    refitted = [i for i, kl in enumerate(before) if kl > 0 and unchanged[i] > 0]
    factors = dict.fromkeys(range(len(groups)), 1.0)
    if refitted:
        coarse = _kl_by_factor(model, [everywhere[i] for i in refitted], [_COARSE] * len(refitted))
        starts = [_below(kls, before[i]) for i, kls in zip(refitted, coarse, strict=True)]
        step = 2.0 ** (1 / _FINE)
        finer = [[_COARSE[start] * step**n for n in range(_FINE + 1)] for start in starts]
        fine = _kl_by_factor(model, [everywhere[i] for i in refitted], finer)
        for i, group_factors, kls in zip(refitted, finer, fine, strict=True):
            factors[i] = _crossing(group_factors, kls, before[i])
    scaled = [[factors[i] * direction for direction in group] for i, group in enumerate(everywhere)]
    after = _kl(model, scaled)
    return [
        (group, Refit(factors[i], before[i], unchanged[i], after[i]))
        for i, group in enumerate(scaled)
    ]


def _kl(model: TransformerBridge, branches: list[list[Direction]]) -> list[float]:
    return kl_to_base(branch(model, NEUTRAL_PROMPTS, branches)).tolist()


def _kl_by_factor(
    model: TransformerBridge,
    groups: Sequence[Sequence[Direction]],
    factors: Sequence[Sequence[float]],
) -> list[list[float]]:
    branches = [
        [factor * direction for direction in group]
        for group, group_factors in zip(groups, factors, strict=True)
        for factor in group_factors
    ]
    kls = torch.tensor(_kl(model, branches)).split(
        [len(group_factors) for group_factors in factors]
    )
    return [part.tolist() for part in kls]


def _below(kls: Sequence[float], wanted: float) -> int:
    """The last factor before the first that moves neutral text further than is wanted."""
    over = next((i for i, kl in enumerate(kls) if not kl <= wanted), len(kls) - 1)
    return max(0, over - 1)


def _crossing(factors: Sequence[float], kls: Sequence[float], wanted: float) -> float:
    """Where the KL crosses what is wanted, between two factors; else the nearest that was tried."""
    for (low, high), (a, b) in zip(pairwise(factors), pairwise(kls), strict=True):
        if 0 < a <= wanted < b:
            share = torch.tensor([wanted, b]).div(a).log().tolist()
            return low * (high / low) ** (share[0] / share[1])
    return min(zip(factors, kls, strict=True), key=lambda pair: abs(pair[1] - wanted))[0]
