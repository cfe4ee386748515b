"""Which points run together: those that share most come one after the other, on one worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saepd.sweeps.point.run_point import WorkSettings
from saepd.sweeps.results.store import Outcome
from saepd.sweeps.space.parameters import PointConfig
from saepd.sweeps.space.points import Point


def prefix_group(config: PointConfig) -> str:
    """Equal for points that share a captured prefix."""
    shared = [asdict(config.task), asdict(config.where), asdict(config.draw)]
    return _text([*shared, config.fit.direction.positions])


def branches_group(config: PointConfig) -> str:
    """Equal for points that differ in their merge only: these share branch scores."""
    return _text([prefix_group(config), asdict(config.fit)])


@dataclass(frozen=True)
class Unit:
    """Points that share branch scores: what one worker is given at a time.

    Attributes:
        group: Of their prefix.
        points: One or more.
    """

    group: str
    points: tuple[Point, ...]


def units_of(points: Sequence[Point]) -> list[Unit]:
    """The points in units, those with the same prefix next to each other."""
    groups: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        of_prefix = groups.setdefault(prefix_group(point.config), {})
        of_prefix.setdefault(branches_group(point.config), []).append(point)
    return [
        Unit(group, tuple(own)) for group, of_prefix in groups.items() for own in of_prefix.values()
    ]


def next_unit(waiting: Sequence[Unit], had: str | None, held_by_others: set[str]) -> Unit:
    """What to give to an idle worker: of the prefix it has, else one nobody has, else any."""
    for wanted in (
        lambda unit: unit.group == had,
        lambda unit: unit.group not in held_by_others,
        lambda unit: True,
    ):
        for unit in waiting:
            if wanted(unit):
                return unit
    raise ValueError("nothing is waiting")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# Points in, outcomes out as they come.
Backend = Callable[[Sequence[Point], WorkSettings], Iterator[Outcome]]
