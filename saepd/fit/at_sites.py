"""Directions of one site or several, from what is written at each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, Edit
from saepd.directions.sites import same_site
from saepd.fit.asked import Vector
from saepd.saes.abilities import check_writes
from saepd.saes.load import written_site

if TYPE_CHECKING:
    from sae_lens import SAE


def by_site(saes: SAE[Any] | Sequence[SAE[Any]]) -> tuple[SAE[Any], ...]:
    """The dictionaries that were given, that of the lowest site first.

    Raises:
        InputError: none at all, one that cannot steer, or two of one site.
    """
    listed = list(saes) if isinstance(saes, Sequence) else [saes]
    if not listed:
        raise InputError("there is no SAE to learn with: give one, or several of different sites")
    for one in listed:
        check_writes(one)
    listed.sort(key=lambda sae: int(written_site(sae).split(".")[1]))
    sites = [written_site(sae) for sae in listed]
    for i, site in enumerate(sites):
        if any(same_site(site, other) for other in sites[:i]):
            raise InputError(f"two SAEs are of the site {site}: give one SAE for each site")
    return tuple(listed)


def direction_at(
    perspective: str, hook_names: Sequence[str], edits: Sequence[Edit], **settings: Any
) -> Direction:
    """One direction that makes an edit at each site.

    Args:
        perspective: Name of the perspective.
        hook_names: The sites.
        edits: What is done at each.
        settings: The other fields of `Direction`; ``positions`` hold at every site.
    """
    positions = {"positions": settings["positions"]} if "positions" in settings else {}
    first, *further = zip(hook_names, edits, strict=True)
    also = tuple(Direction(perspective, site, edit, **positions) for site, edit in further)
    return Direction(perspective, *first, also=also, **settings)


def added(vector: Vector, n_sites: int) -> list[Edit]:
    """Edits that add a vector, of which each site has its part."""
    return [AddVector(torch.from_numpy(part.copy())) for part in np.split(vector, n_sites)]
