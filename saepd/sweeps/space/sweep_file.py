"""A sweep as a file: W&B's format, read and checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.messages import nearest, shortened
from saepd.sweeps.point.metrics import GOALS, Goal, check_metric
from saepd.sweeps.space.parameters import point_config
from saepd.sweeps.space.space import Choice, Range, Space, parse_parameter
from saepd.sweeps.space.yaml_values import read_yaml

# More points than this are a mistake: even the readout alone would take days.
MOST_POINTS = 1_000_000
SearchMethod = Literal["grid", "random", "bayes"]

# Keys of the format that say how W&B's agents start a point, or what a sweep is called.
_ELSEWHERE = ("program", "command", "description", "project", "entity")
_KEYS = ("name", "method", "metric", "parameters", "run_cap")


@dataclass(frozen=True)
class Sweep:
    """What is tried: parameters, their values, and what tells good points from bad ones.

    Attributes:
        name: Name of the sweep, and of the group of its W&B runs.
        method: ``grid`` (every combination), ``random``, or ``bayes`` (where results led before).
        parameters: Name of each parameter -> the values it may take.
        metric: Name of the metric that points are compared by.
        goal: Whether the metric is to be small or large.
        run_cap: Largest number of points; all of a grid if None.
    """

    name: str
    method: SearchMethod
    parameters: Mapping[str, Space]
    metric: str
    goal: Goal
    run_cap: int | None = None

    @property
    def varied(self) -> list[str]:
        """Names of the parameters that have more than one value."""
        return [
            name
            for name, space in self.parameters.items()
            if isinstance(space, Range) or len(space.values) > 1
        ]


def load_sweep(
    path: str | Path | Mapping[str, Any], fixed: Mapping[str, Any] | None = None
) -> Sweep:
    """Read and check a sweep, in W&B's format.

    Args:
        path: The file, or what would stand in it as a mapping.
        fixed: Parameter -> value that stands in the place of what the file says about it.

    Returns:
        What is tried, for `saepd.run_sweep`.

    Raises:
        InputError: no such file, no UTF-8, no YAML, YAML that people read otherwise (such as NO or
            1:30), code of a model that a file may not switch on, an unknown key, method, metric or
            parameter, values that no point can have, or a search without an end; the file is named.
    """
    if isinstance(path, Mapping):
        return parse_sweep(_with_fixed(path, fixed))
    path = Path(path)
    content = read_yaml(read_text(path), str(path))
    _check_no_code(content, path)
    try:
        return parse_sweep(_with_fixed(content, fixed), path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _with_fixed(content: Any, fixed: Mapping[str, Any] | None) -> Any:
    if not (fixed and isinstance(content, Mapping)):
        return content
    if not isinstance(content.get("parameters"), Mapping):
        return content
    entries = {name: {"value": value} for name, value in fixed.items()}
    return {**content, "parameters": {**content["parameters"], **entries}}


def parse_sweep(content: Any, name: str = "sweep") -> Sweep:
    """Check the content of a sweep file.

    Raises:
        InputError: an unknown key, method, metric or parameter, values that no point can have, or
            a search without an end.
    """
    if not isinstance(content, Mapping):
        raise InputError(
            f"a sweep is a mapping with method, metric and parameters, not {shortened(content)}"
        )
    for key in content:
        if key == "early_terminate":
            raise InputError("early_terminate has nothing to stop: a point has one result; drop it")
        if key not in (*_KEYS, *_ELSEWHERE):
            raise InputError(f"unknown key {shortened(key)}: {nearest(str(key), _KEYS)}")
    method: Any = content.get("method")
    if method not in get_args(SearchMethod):
        raise InputError(f"method is {shortened(method)}: use grid, random or bayes")
    entries = content.get("parameters")
    if not isinstance(entries, Mapping) or not entries:
        raise InputError("parameters is empty: name at least one, with its values")
    parameters = {str(key): parse_parameter(str(key), entry) for key, entry in entries.items()}
    metric, goal = _metric(content.get("metric"))
    run_cap = content.get("run_cap")
    if run_cap is not None and (type(run_cap) is not int or not 1 <= run_cap <= MOST_POINTS):
        raise InputError(
            f"run_cap is {shortened(run_cap)}: it must be a whole number from 1 to {MOST_POINTS}"
        )
    ranges = [key for key, space in parameters.items() if isinstance(space, Range)]
    if method == "grid" and ranges:
        raise InputError(
            f"parameter {ranges[0]} is a range, which has no grid: list its values, or use random "
            "or bayes"
        )
    if run_cap is None and (method == "bayes" or ranges):
        raise InputError(f"method {method} never ends by itself: give a run_cap")
    _check_ends(parameters)
    return Sweep(str(content.get("name", name)), method, parameters, metric, goal, run_cap)


def _metric(entry: Any) -> tuple[str, Goal]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise InputError(
            f"metric is {shortened(entry)}: write metric: {{name: js_distance, goal: minimize}}"
        )
    for key in entry:
        if key not in ("name", "goal", "target"):
            raise InputError(f"metric has a key {shortened(key)}: it takes name and goal")
    if "target" in entry:
        raise InputError("metric has a target, which saepd's sweeps do not stop at: drop it")
    name = entry["name"]
    check_metric(name)
    goal = entry.get("goal", GOALS[name])
    if goal != GOALS[name]:
        raise InputError(
            f"the goal of {name} is {shortened(goal)}: it is better the "
            f"{'smaller' if GOALS[name] == 'minimize' else 'larger'} it is, so use {GOALS[name]}"
        )
    return name, goal


def _check_no_code(content: Any, path: Path) -> None:
    """Refuse a file that would run the code that comes with a model: only a person may."""
    entries = content.get("parameters") if isinstance(content, Mapping) else None
    if isinstance(entries, Mapping) and "trust_remote_code" in entries:
        raise InputError(
            f"{path}: parameter trust_remote_code would run code that comes with a model, which a "
            "file may not decide: take it out, and give it where the sweep is started"
        )


def _check_ends(parameters: Mapping[str, Space]) -> None:
    """Let the dataclasses see every value once, so that none is refused hours later."""
    usual = {
        name: space.values[0] if isinstance(space, Choice) else space.rounded(space.low)
        for name, space in parameters.items()
    }
    for name, space in parameters.items():
        ends = space.values if isinstance(space, Choice) else (space.low, space.high)
        for value in ends:
            value = value if isinstance(space, Choice) else space.rounded(value)
            point_config(usual | {name: value})
