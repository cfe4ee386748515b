"""Which points run together: those that share most come one after the other, on one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from saepd.sweeps.point.dependencies import keys_by_settings
from saepd.sweeps.point.run_point import WorkSettings
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.points import SweepPoint


@dataclass(frozen=True)
class WorkUnit:
    """Points that share branch scores: what one worker is given at a time.

    Attributes:
        group: Equal for units whose points share a captured prefix.
        points: The points, one or more.
    """

    group: str
    points: tuple[SweepPoint, ...]


def units_of(points: Sequence[SweepPoint]) -> list[WorkUnit]:
    """The points in units, those with the same prefix next to each other."""
    groups: dict[str, dict[str, list[SweepPoint]]] = {}
    for point in points:
        keys = keys_by_settings(point.config)
        groups.setdefault(keys["prefix"], {}).setdefault(keys["branches"], []).append(point)
    return [
        WorkUnit(group, tuple(of_branches))
        for group, of_prefix in groups.items()
        for of_branches in of_prefix.values()
    ]


def next_unit(waiting: Sequence[WorkUnit], had: str | None, held_by_others: set[str]) -> WorkUnit:
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


# Points in, outcomes out as they come.
Backend = Callable[[Sequence[SweepPoint], WorkSettings], Iterator[PointOutcome]]
