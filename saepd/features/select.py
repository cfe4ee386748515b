"""Which SAE latents tell the answers of one perspective: score them, and test for stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.features.config import Contrast, FeatureConfig
from saepd.features.encode import Pairs


@dataclass(frozen=True)
class Features:
    """The latents chosen for one perspective, strongest first.

    Attributes:
        perspective: Whose.
        latents: Their ids.
        effect: Standardised mean difference per latent; unit-free, signed.
        value: Mean difference per latent, in SAE activation units.
        stability: Share of bootstrap draws in which the latent was among the k.
        density: Share of positions at which the latent fires.
        n_candidates: Latents that passed the density screen.
        n_unstable: Latents among the k strongest that were dropped as unstable.
    """

    perspective: str
    latents: Int[Tensor, " k"]
    effect: Float[Tensor, " k"]
    value: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]
    density: Float[Tensor, " k"]
    n_candidates: int
    n_unstable: int


def select_features(pairs: Pairs, perspective: str, config: FeatureConfig) -> Features:
    """Score all latents for one perspective and keep the k strongest that are stable.

    The score is the mean difference over its standard error, with the median standard error of
    the candidates added to the denominator, so that latents that hardly vary do not win by that
    (Tusher et al. 2001, eq. 1), divided by the root of the number of rows.

    Raises:
        InputError: fewer than two rows of the perspective, or (``others``) of the rest.
    """
    own = pairs.of(perspective)
    others = torch.ones(len(pairs.rows), dtype=torch.bool)
    others[own] = False
    rest = others.nonzero().squeeze(-1)
    if len(own) < 2:
        raise InputError(f"perspective {perspective!r} has {len(own)} feedback rows: 2 are needed")
    if config.contrast == "others" and len(rest) < 2:
        raise InputError(
            "contrast 'others' needs feedback of at least one more perspective: add some, or use "
            "contrast options or anchor"
        )
    fires = pairs.latents.abs().sum(0) > 0
    if config.k == 0:
        value = mean_difference(pairs, pairs.latents, perspective, config.contrast)
        latents = fires.nonzero().squeeze(-1)
        none = torch.full((len(latents),), float("nan"))
        density = pairs.density[latents]
        return Features(perspective, latents, none, value[latents], none, density, len(latents), 0)
    candidates = fires & (pairs.density <= config.max_density)
    # A latent that is silent at counted positions but not at the others only marks the template.
    candidates &= ~((pairs.density == 0) & (pairs.special_density > 0))
    ids = candidates.nonzero().squeeze(-1)
    if len(ids) == 0:
        raise InputError(
            f"no latent passes the density screen for {perspective!r}: raise max_density "
            f"(it is {config.max_density})"
        )
    k = min(config.k, len(ids))
    generator = torch.Generator().manual_seed(config.bootstrap_seed)
    ones = torch.ones(1, len(own)), torch.ones(1, max(1, len(rest)))
    effect = _effect(pairs.latents[:, ids], own, rest, ones[0], ones[1], config.contrast)[0]
    draws = [
        torch.stack(
            [
                torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).float()
                for _ in range(config.n_bootstrap)
            ]
        )
        for n in (len(own), max(1, len(rest)))
    ]
    strength = _effect(pairs.latents[:, ids], own, rest, draws[0], draws[1], config.contrast).abs()
    chosen_in = torch.zeros_like(strength).scatter_(1, strength.topk(k, dim=1).indices, 1.0)
    stability = chosen_in.mean(0)
    best = effect.abs().topk(k).indices
    stable = best[stability[best] >= config.min_stability]
    if len(stable) == 0:
        # Nothing is stable: say so through the counts, and keep the single most stable latent.
        stable = best[stability[best].argmax()].unsqueeze(0)
    latents = ids[stable]
    return Features(
        perspective=perspective,
        latents=latents,
        effect=effect[stable],
        value=mean_difference(pairs, pairs.latents, perspective, config.contrast)[latents],
        stability=stability[stable],
        density=pairs.density[latents],
        n_candidates=len(ids),
        n_unstable=k - len(stable),
    )


def overlap(features: Sequence[Features]) -> dict[tuple[str, str], float]:
    """Jaccard index of the chosen latents of every two perspectives; 0 disjoint, 1 the same."""
    result = {}
    for i, a in enumerate(features):
        for b in features[i + 1 :]:
            first, second = set(a.latents.tolist()), set(b.latents.tolist())
            union = first | second
            result[a.perspective, b.perspective] = len(first & second) / max(1, len(union))
    return result


def mean_difference(
    pairs: Pairs, values: Float[Tensor, "rows width"], perspective: str, contrast: Contrast
) -> Float[Tensor, " width"]:
    """Mean of one perspective's rows; less the mean of all other rows for contrast ``others``."""
    own = torch.zeros(len(pairs.rows), dtype=torch.bool)
    own[pairs.of(perspective)] = True
    mean = values[own].mean(0)
    return mean - values[~own].mean(0) if contrast == "others" else mean


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
