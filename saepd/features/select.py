"""Which SAE latents tell the answers of one perspective: score them, and test for stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.checks import check_choice, check_part
from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import card, note, table
from saepd.common.messages import shortlist
from saepd.features.config import Contrast, FeatureConfig
from saepd.features.encode import Pairs
from saepd.features.stability import effect_and_stability, stable_by_chance

if TYPE_CHECKING:
    import pandas as pd

# Latents that a notebook shows at once.
_SHOWN = 20
# Standardised differences below this are rounding errors of equal means.
_NO_EFFECT = 1e-4


@dataclass(frozen=True, repr=False)
class Features:
    """The latents chosen for one perspective, strongest first.

    Attributes:
        perspective: Name of the perspective that they were chosen for.
        latents: Ids of the chosen latents.
        effect: Standardised mean difference of each latent; unit-free, signed.
        value: Mean difference of each latent, in SAE activation units.
        stability: Share of bootstrap draws in which each latent was chosen; see `select_features`.
        density: Share of positions at which each latent fires.
        n_candidates: Number of latents that passed the density screen.
        n_unstable: Number of latents among the k strongest that were dropped as unstable.
        n_by_chance: How many latents would count as stable if the rows' perspectives were dealt
            out at random, mean over 20 shuffles; None where there is nobody to shuffle with.
        notes: What must be said with these latents, in whole sentences.
        kept_unstable: Whether none is stable, and the most stable one is kept all the same.
    """

    perspective: str
    latents: Int[Tensor, " k"]
    effect: Float[Tensor, " k"]
    value: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]
    density: Float[Tensor, " k"]
    n_candidates: int
    n_unstable: int
    n_by_chance: float | None = None
    notes: tuple[str, ...] = ()
    kept_unstable: bool = False

    def __repr__(self) -> str:
        latents = [f"{row['latent']} ({row['value']:+.3g})" for row in self._rows()]
        return f"Features({self.perspective!r}: {len(latents)} latents, {shortlist(latents)})"

    def frame(self) -> pd.DataFrame:
        """One row a latent, strongest first, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(self._rows())

    def _repr_html_(self) -> str:
        rows = [list(row.values())[1:] for row in self._rows()[:_SHOWN]]
        columns = ["latent", "effect", "mean difference", "stability", "density"]
        left_out = len(self.latents) - len(rows)
        more = [note(f"and {left_out} more: frame() has all")] if left_out else []
        return card(
            f"{self.perspective}: {len(self.latents)} latents",
            table(columns, rows),
            *more,
            *map(note, self.notes),
        )

    def _rows(self) -> list[dict[str, Any]]:
        columns = (self.latents, self.effect, self.value, self.stability, self.density)
        names = ("latent", "effect", "value", "stability", "density")
        return [
            {"perspective": self.perspective, **dict(zip(names, row, strict=True))}
            for row in zip(*(column.tolist() for column in columns), strict=True)
        ]

    @property
    def n_stable(self) -> int:
        """How many of the latents are stable; none where nothing was screened."""
        screened = int(self.stability.isfinite().sum())
        return 0 if self.kept_unstable else screened


def select_features(pairs: Pairs, perspective: str, config: FeatureConfig) -> Features:
    """Score all latents for one perspective and keep the k strongest that are stable.

    The score is the mean difference over its standard error, with the median standard error of
    the candidates added to the denominator, so that latents that hardly vary do not win by that
    (Tusher et al. 2001, eq. 1), divided by the root of the number of rows.

    A bootstrap draw of the rows chooses a latent if it is among the q strongest of the draw, with
    the sign it has in all rows. q is k, but at most the root of 0.8 times the number of
    candidates, since choosing many of few says nothing: with that many, latents that are chosen
    in 9 of 10 draws hold at most one false one in expectation (Meinshausen and Buehlmann 2010,
    theorem 1).

    Args:
        pairs: The encoded feedback of all perspectives, from `encode_pairs`.
        perspective: Name of the perspective whose latents are chosen.
        config: How many latents are kept, and what screens them.

    Raises:
        InputError: fewer than two rows of the perspective, or (``others``) of the rest; or rows
            that do not differ at any latent.
    """
    return _selected(_screened(pairs, config), perspective)


def select_all(pairs: Pairs, config: FeatureConfig) -> list[Features]:
    """`select_features` of every perspective; what they have in common is computed once.

    Raises:
        InputError: whatever `select_features` refuses.
    """
    screened = _screened(pairs, config)
    return [_selected(screened, name) for name in pairs.perspectives]


@dataclass(frozen=True)
class _Screened:
    """What the choice for every perspective starts from.

    Attributes:
        pairs: The encoded feedback.
        config: How latents are chosen.
        ids: Latents to choose from.
        latents: What they do in every row.
    """

    pairs: Pairs
    config: FeatureConfig
    ids: Int[Tensor, " k"]
    latents: Float[Tensor, "rows k"]
    _by_chance: dict[int, float | None] = field(init=False, default_factory=dict)

    def by_chance(self, n_own: int) -> float | None:
        """How many latents are stable by chance, for perspectives of as many rows."""
        if n_own not in self._by_chance:
            self._by_chance[n_own] = stable_by_chance(self.latents, n_own, self.config)
        return self._by_chance[n_own]


def candidates(pairs: Pairs, config: FeatureConfig) -> Int[Tensor, " k"]:
    """Ids of the latents to choose from: those that fire, neither everywhere nor by template."""
    passes = pairs.latents.abs().sum(0) > 0
    if config.k > 0:
        passes &= pairs.density <= config.max_density
        # A latent that is silent at counted positions but not at others only marks the template.
        passes &= ~((pairs.density == 0) & (pairs.special_density > 0))
    return passes.nonzero().squeeze(-1)


def _screened(pairs: Pairs, config: FeatureConfig) -> _Screened:
    check_part("config", config, FeatureConfig)
    ids = candidates(pairs, config)
    return _Screened(pairs, config, ids, pairs.latents[:, ids])


def _selected(screened: _Screened, perspective: str) -> Features:
    pairs, config, ids = screened.pairs, screened.config, screened.ids
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
    if config.k == 0:
        value = mean_difference(pairs, screened.latents, perspective, config.contrast)
        none = torch.full((len(ids),), float("nan"))
        return Features(perspective, ids, none, value, none, pairs.density[ids], len(ids), 0)
    if len(ids) == 0:
        raise InputError(
            f"no latent passes the density screen for {perspective!r}: raise max_density "
            f"(it is {config.max_density})"
        )
    effect, stability = effect_and_stability(screened.latents, own, rest, config)
    if float(effect.abs().max()) < _NO_EFFECT:
        against = {
            "others": "the feedback of all others",
            "options": "the mean of the items' options",
            "anchor": "the bare items",
        }[config.contrast]
        raise InputError(
            f"the feedback of {perspective!r} does not differ from {against} at any latent: there "
            "is nothing to choose latents by"
        )
    best = effect.abs().topk(min(config.k, len(ids))).indices
    stable = best[stability[best] >= config.min_stability]
    notes = _few_rows(perspective, len(own), config)
    kept_unstable = len(stable) == 0
    if kept_unstable:
        stable = best[stability[best].argmax()].unsqueeze(0)
        notes += (
            f"No latent of {perspective!r} reaches the stability {config.min_stability:g}: the "
            f"most stable one is kept, at {float(stability[stable]):.2f}.",
        )
    latents = ids[stable]
    return Features(
        perspective=perspective,
        latents=latents,
        effect=effect[stable],
        value=mean_difference(pairs, pairs.latents[:, latents], perspective, config.contrast),
        stability=stability[stable],
        density=pairs.density[latents],
        n_candidates=len(ids),
        n_unstable=len(best) - len(stable),
        n_by_chance=screened.by_chance(len(own)),
        notes=notes,
        kept_unstable=kept_unstable,
    )


class Overlap(NamedTuple):
    """How far two perspectives share their chosen latents.

    Attributes:
        same: Share of all latents of either that both have with the same sign.
        opposite: Share of all latents of either that both have with opposite signs.
    """

    same: float
    opposite: float


def overlap(features: Sequence[Features]) -> dict[tuple[str, str], Overlap]:
    """Jaccard index of the chosen latents of every two perspectives, told apart by sign.

    The index is the number of latents that both chose over the number that either chose, from 0 to
    1.

    Args:
        features: The latents chosen for each perspective.

    Returns:
        The overlap of each pair of perspectives, under both names.
    """
    result = {}
    for i, a in enumerate(features):
        for b in features[i + 1 :]:
            first, second = (
                dict(zip(f.latents.tolist(), (f.value > 0).tolist(), strict=True)) for f in (a, b)
            )
            union, shared = len(first | second), first.keys() & second.keys()
            same = sum(first[latent] == second[latent] for latent in shared)
            result[a.perspective, b.perspective] = Overlap(
                same / max(1, union), (len(shared) - same) / max(1, union)
            )
    return result


def mean_difference(
    pairs: Pairs, values: Float[Tensor, "rows width"], perspective: str, contrast: Contrast
) -> Float[Tensor, " width"]:
    """Mean of one perspective's rows; less the mean of all other rows for contrast ``others``.

    Raises:
        InputError: a perspective without rows, or an unknown contrast.
    """
    check_choice("perspective", perspective, pairs.perspectives)
    check_choice("contrast", contrast, get_args(Contrast))
    is_own = torch.zeros(len(pairs.rows), dtype=torch.bool)
    is_own[pairs.of(perspective)] = True
    mean = values[is_own].mean(0)
    return mean - values[~is_own].mean(0) if contrast == "others" else mean


def _few_rows(perspective: str, n_rows: int, config: FeatureConfig) -> tuple[str, ...]:
    """A note where the rows can hardly be drawn in different ways."""
    n_different = math.comb(2 * n_rows - 1, n_rows)
    if n_different >= config.n_bootstrap:
        return ()
    return (
        f"{perspective!r} has only {n_rows} feedback rows, which can be drawn in {n_different} "
        "ways: stability says little.",
    )
