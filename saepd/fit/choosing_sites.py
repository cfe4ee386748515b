"""At which of several sites to write: all of them together, or one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float

from saepd.fit.asked import Effect
from saepd.fit.candidates import Kind, Learner
from saepd.fit.config import LearningConfig
from saepd.fit.gauss_newton import Around
from saepd.fit.penalised import Part, Ridge, Row, effect_size, fit_both, fit_shared
from saepd.fit.sparse import Dictionary
from saepd.fit.validate import fitted_without, foretold


def best_sites(
    rows: Sequence[Row],
    dictionary: Dictionary,
    config: LearningConfig,
    kind: Kind,
    parts: Sequence[set[str]],
) -> tuple[int, ...]:
    """The sites at which what is to be written foretells held-out answers best, to first order.

    Args:
        rows: Answers, whose candidates are the axes of the residual stream at each site.
        dictionary: The latents of each site.
        config: Whether to choose, and penalties to try.
        kind: What is to be written: few latents lose more where they have several sites to serve.
        parts: The questions that are held out together; see `saepd.fit.validate.folds`.

    Returns:
        Indices of the sites: of all, or of one of them.
    """
    n_sites = len(dictionary.units)
    everywhere = tuple(range(n_sites))
    if n_sites == 1 or config.sites == "all":
        return everywhere

    def loss(sites: tuple[int, ...]) -> float:
        return _least(_at_sites(rows, sites, n_sites), dictionary.at(sites), config, kind, parts)

    return min([everywhere, *((site,) for site in everywhere)], key=loss)


def _least(
    rows: Sequence[Row],
    dictionary: Dictionary,
    config: LearningConfig,
    kind: Kind,
    parts: Sequence[set[str]],
) -> float:
    """Mean loss of held-out answers under the best penalties, in nats."""
    size, names = effect_size(rows), {row.perspective for row in rows}

    def fit_everybodys(seen: Sequence[Row], ridge: Ridge) -> dict[str, Part]:
        return dict.fromkeys(names, fit_shared(seen, ridge, size))

    def loss(fit: Callable[[Sequence[Row]], Mapping[str, Part]]) -> float:
        return float(np.nanmean(foretold(rows, parts, fitted_without(rows, parts, fit))))

    ridges = [Ridge(shared=shared) for shared in config.shared]
    ridge = min(ridges, key=lambda one: loss(partial(fit_everybodys, ridge=one)))
    ridges = [replace(ridge, own=own) for own in config.own]
    ridge = min(ridges, key=lambda one: loss(partial(fit_both, ridge=one, size=size)))
    endless = np.full(len(dictionary.units), np.inf)
    learner = Learner(dictionary, config.n_latents, ridge, size, endless, 0)
    return loss(lambda seen: learner.fit(kind, seen).parts)


def effects_at(around: Around, sites: Sequence[int], n_sites: int) -> Around:
    """The same effects of what is written at some of the sites, where nothing is written yet."""
    return {
        pair: Effect(
            _part(effect.vector, sites, n_sites),
            effect.moved,
            _part(effect.gradients, sites, n_sites),
        )
        for pair, effect in around.items()
    }


def _at_sites(rows: Sequence[Row], sites: Sequence[int], n_sites: int) -> list[Row]:
    """Rows with their effects at some sites, those of one question as one array."""
    effects: dict[int, Float[np.ndarray, "options units"]] = {}
    for row in rows:
        if id(row.effects) not in effects:
            effects[id(row.effects)] = _part(row.effects, sites, n_sites)
    return [replace(row, effects=effects[id(row.effects)]) for row in rows]


def _part(
    numbers: Float[np.ndarray, "*rows sites*d_model"], sites: Sequence[int], n_sites: int
) -> Float[np.ndarray, "*rows some*d_model"]:
    parts = np.split(numbers, n_sites, axis=-1)
    return np.concatenate([parts[site] for site in sites], axis=-1)
