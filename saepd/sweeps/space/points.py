"""The points of a grid or a random search, and what makes two points the same one."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from saepd.common.errors import InputError
from saepd.sweeps.point.identity import point_key
from saepd.sweeps.space.parameters import PointConfig, point_config
from saepd.sweeps.space.space import Choice
from saepd.sweeps.space.sweep_file import MOST_POINTS, Sweep


@dataclass(frozen=True)
class SweepPoint:
    """One combination of values.

    Attributes:
        number: Its place in the sweep, from 0.
        config: Everything it depends on, defaults included.
    """

    number: int
    config: PointConfig

    @cached_property
    def key(self) -> str:
        """What it is called in the store."""
        return point_key(self.config)


def sweep_points(sweep: Sweep, seed: int = 0) -> list[SweepPoint]:
    """All points of a grid or a random search, in an order that restarts repeat.

    A random search over listed values alone is the grid in a random order; with ranges, the i-th
    point depends on the seed and i only. No point comes twice.

    Raises:
        InputError: method bayes, whose points depend on results; or far too many points.
    """
    if sweep.method == "bayes":
        raise InputError("the points of a bayes sweep are not known beforehand")
    spaces = sweep.parameters
    if all(isinstance(space, Choice) for space in spaces.values()):
        lists = [space.values for space in spaces.values() if isinstance(space, Choice)]
        n = math.prod(map(len, lists))
        if n > MOST_POINTS:
            raise InputError(f"the grid has {n} points: list fewer values")
        grid = [dict(zip(spaces, values, strict=True)) for values in itertools.product(*lists)]
        if sweep.method == "random":
            grid = [grid[i] for i in np.random.default_rng(seed).permutation(n)]
        return numbered(grid[: sweep.run_cap])
    assert sweep.run_cap is not None
    drawn: dict[str, dict[str, Any]] = {}
    for i in range(100 * sweep.run_cap):
        rng = np.random.default_rng([seed, i])
        values = {name: space.sample(rng) for name, space in spaces.items()}
        drawn.setdefault(json.dumps(values, sort_keys=True), values)
        if len(drawn) == sweep.run_cap:
            break
    return numbered(list(drawn.values()))


def numbered(combinations: list[dict[str, Any]]) -> list[SweepPoint]:
    """The combinations as points; of those that mean the same, the first."""
    points: dict[str, SweepPoint] = {}
    for values in combinations:
        point = SweepPoint(len(points), point_config(values))
        points.setdefault(point.key, point)
    return list(points.values())


def short_name(config: PointConfig, varied: list[str]) -> str:
    """What tells a point from the others of its sweep, in one line."""
    flat: Mapping[str, Any] = config.flat()
    return ", ".join(f"{name} {flat[name]}" for name in varied) or "the only point"
