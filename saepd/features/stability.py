"""Effect of every candidate latent, and how often a bootstrap of the rows would choose it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.features.config import Contrast, FeatureConfig

# Shuffles of the perspectives by which chance is measured.
_N_SHUFFLES = 20


def effect_and_stability(
    latents: Float[Tensor, "rows k"],
    own: Int[Tensor, " n"],
    rest: Int[Tensor, " m"],
    config: FeatureConfig,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Effect of every candidate, and the share of bootstrap draws in which it is chosen."""
    generator = torch.Generator().manual_seed(config.bootstrap_seed)
    # Of the rest, only what is compared with them.
    sizes = len(own), len(rest) if config.contrast == "others" else 1
    once = [torch.ones(1, n) for n in sizes]
    effect = _effect(latents, own, rest, once[0], once[1], config.contrast)[0]
    draws = [
        torch.stack(
            [
                torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).float()
                for _ in range(config.n_bootstrap)
            ]
        )
        for n in sizes
    ]
    drawn = _effect(latents, own, rest, draws[0], draws[1], config.contrast)
    q = max(1, min(config.k, int((0.8 * latents.shape[1]) ** 0.5)))
    among = torch.zeros_like(drawn).scatter_(1, drawn.abs().topk(q, dim=1).indices, 1.0)
    return effect, (among * (drawn.sign() == effect.sign())).mean(0)


def stable_by_chance(
    latents: Float[Tensor, "rows k"], n_own: int, config: FeatureConfig
) -> float | None:
    """Mean number of stable latents of rows that are drawn without regard to who gave them."""
    n_rows, counts = len(latents), []
    if n_own == n_rows:
        return None
    for seed in range(_N_SHUFFLES):
        order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
        effect, stability = effect_and_stability(latents, order[:n_own], order[n_own:], config)
        best = effect.abs().topk(min(config.k, len(effect))).indices
        counts.append(int((stability[best] >= config.min_stability).sum()))
    return sum(counts) / len(counts)


def _effect(
    latents: Float[Tensor, "rows k"],
    own: Int[Tensor, " n"],
    rest: Int[Tensor, " m"],
    own_counts: Float[Tensor, "draws n"],
    rest_counts: Float[Tensor, "draws m"],
    contrast: Contrast,
) -> Float[Tensor, "draws k"]:
    """Moderated standardised mean difference for every draw of the rows."""
    mean, variance = _moments(latents[own], own_counts)
    squared_error = variance / len(own)
    if contrast == "others":
        other_mean, other_variance = _moments(latents[rest], rest_counts)
        mean = mean - other_mean
        squared_error = squared_error + other_variance / len(rest)
    error = squared_error.sqrt()
    return mean / (error + error.median(dim=1, keepdim=True).values + 1e-12) / len(own) ** 0.5


def _moments(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ rows
    return mean, (weights @ rows.square() - mean.square()).clamp(min=0)
