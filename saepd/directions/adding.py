"""Directions added to one another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError
from saepd.directions.edits import AddVector
from saepd.directions.sites import same_site

if TYPE_CHECKING:
    from saepd.directions.direction import Direction


def added(one: Direction, other: Direction) -> Direction:
    """The direction that does what both do, with what their lineages have in common.

    Vectors that are added at the same places are added up; whatever else they do, it does side by
    side. A readout was fitted for one direction's branch, so the sum keeps it only where both have
    the same.

    Raises:
        InputError: directions with different gates, or for different models.
    """
    both = f"directions {one.perspective!r} and {other.perspective!r}"
    if one.gate is not other.gate:
        raise InputError(
            f"{both} have no sum, since a gate decides how much of one is written: give them as "
            "one branch, [d1, d2]"
        )
    if one.edit.width != other.edit.width or _is_elsewhere(one.lineage, other.lineage):
        raise InputError(f"{both} are for different models, so they have no sum")
    name = f"{one.perspective} + {other.perspective}"
    if same_places(one, other):
        pairs = zip(one.parts, other.parts, strict=True)
        parts = [part for pair in pairs for part in _added_up(*pair)]
    else:
        parts = [*one.parts, *other.parts]
    # Coefficients of further sites are shares of the first's, which so must not be zero.
    parts.sort(key=lambda part: part.coefficient == 0)
    first, *further = [replace(part, perspective=name, gate=None) for part in parts]
    shares = [part.scaled(part.coefficient / (first.coefficient or 1.0)) for part in further]
    lineage = {k: v for k, v in one.lineage.items() if other.lineage.get(k) == v}
    readout = one.readout if one.readout == other.readout else None
    return replace(first, lineage=lineage, readout=readout, gate=one.gate, also=tuple(shares))


def _added_up(one: Direction, other: Direction) -> list[Direction]:
    """Two edits of one place as one, where neither depends on the text."""
    if one.constant is None or other.constant is None:
        return [one, other]
    summed = AddVector(one.constant + other.constant.to(one.constant))
    return [replace(one, edit=summed, coefficient=1.0)]


def same_places(one: Direction, other: Direction) -> bool:
    """Whether two directions write at the same positions of the same sites, in the same order."""
    return len(one.parts) == len(other.parts) and all(
        same_site(mine.hook_name, yours.hook_name) and mine.positions == yours.positions
        for mine, yours in zip(one.parts, other.parts, strict=True)
    )


def _is_elsewhere(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lineages name different models."""
    return any(
        name in one and name in other and one[name] != other[name]
        for name in ("model", "model_fingerprint")
    )
