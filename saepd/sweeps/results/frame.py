"""A sweep's results as a pandas frame, and what it says about its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saepd.common.errors import InputError
from saepd.sweeps.point.metrics import GOALS, SIDE_EFFECT, check_metric
from saepd.sweeps.results.changes import changes, current, told_changes
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.space.parameters import parameter_types

if TYPE_CHECKING:
    import pandas as pd

# A parameter with more values than this is cut into as many parts.
_MOST_LEVELS = 6


def read_sweep(folder: str | Path) -> pd.DataFrame:
    """Every point that a sweep's folder holds, one a row, in the order they were first tried.

    Columns: ``key``, ``status`` and ``error``; ``changed``, what has changed since the point was
    measured (its data, model, SAE or the code), empty where nothing has; every parameter under its
    name; every metric under its name, with the ends of its 95% interval as ``NAME_low`` and
    ``NAME_high``; each perspective's as ``NAME/PERSPECTIVE``; ``features`` (perspective ->
    latents); ``seconds``, ``n_forwards`` (calls of the model that it took) and
    ``n_forwards_saved``.

    Args:
        folder: What was given as ``--out``.

    Raises:
        InputError: pandas is missing, or the folder holds no sweep.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError("pandas is not installed: pip install 'saepd[sweeps]'") from error
    rows: list[dict[str, Any]] = []
    outcomes = ResultStore(Path(folder), create=False).outcomes()
    for outcome, changed in zip(outcomes, changes(outcomes), strict=True):
        result = outcome.result
        # Lists as tuples, so that parameters can be grouped by.
        parameters = {
            k: tuple(v) if isinstance(v, list) else v for k, v in outcome.parameters.items()
        }
        row = {
            "key": outcome.key,
            "status": outcome.status,
            "error": result.get("error"),
            "changed": changed,
            **parameters,
        }
        row |= result.get("metrics", {})
        for name, interval in result.get("intervals", {}).items():
            row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
        for of_perspective in result.get("rows", ()):
            perspective = of_perspective["perspective"]
            row |= {
                f"{k}/{perspective}": v for k, v in of_perspective.items() if k != "perspective"
            }
        stages = result.get("stages", ())
        row["n_forwards"] = sum(s["n_forwards"] for s in stages if not s["reused"])
        row["n_forwards_saved"] = sum(s["n_forwards"] for s in stages if s["reused"])
        row |= {k: result.get(k) for k in ("features", "seconds", "worker", "node")}
        rows.append(row)
    if not rows:
        raise InputError(
            f"no point of the sweep in {folder} has come to an end yet: wait for it, or run it"
        )
    return pd.DataFrame(rows)


def reuse_by_node(folder: str | Path) -> dict[str, float]:
    """Node, or process where there are no nodes -> share of its points whose prefix was there.

    A prefix is there if the process holds it, or if it is not needed because branch scores are.
    """
    uses: dict[str, list[bool]] = {}
    for outcome in ResultStore(Path(folder), create=False).outcomes():
        where = outcome.result.get("node") or outcome.result.get("worker", "")
        for stage in outcome.result.get("stages", ()):
            if stage["kind"] == "prefix":
                uses.setdefault(where, []).append(stage["reused"])
    return {where: sum(reused) / len(reused) for where, reused in uses.items()}


def varied(frame: pd.DataFrame) -> list[str]:
    """Parameters that have more than one value in a frame."""
    return [name for name in parameter_types() if name in frame and len(_levels(frame, name)) > 1]


def told_columns(frame: pd.DataFrame, metric: str, names: Sequence[str]) -> list[str]:
    """What is told of a point: its parameters, the metric with its interval, the side effect."""
    bounds = (f"{metric}_low", f"{metric}_high")
    return list(dict.fromkeys([*names, metric, *(c for c in (*bounds, SIDE_EFFECT) if c in frame)]))


def finished(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The points that have a value of the metric, best first.

    Points of what has changed since are left out: they are no results of what the others are of.

    Raises:
        InputError: an unknown metric, or one that no point has.
    """
    check_metric(metric)
    if metric not in frame or not len(frame[metric].dropna()):
        raise InputError(f"no point of this sweep has a {metric}: use another metric")
    points = current(frame).dropna(subset=[metric])
    if not len(points):
        raise InputError(f"{told_changes(frame)}, and no other has come to an end: run it again")
    return points.sort_values(metric, ascending=GOALS[metric] == "minimize", kind="stable")


def importance(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    """Share of the metric's variance between points that each parameter explains alone.

    Variance of the means of its values over the variance of all points (eta squared), from 0 to 1,
    largest first. In a full grid these shares and those of interactions sum to 1; elsewhere they
    are a hint. A number with more than six values is cut into six parts of as many points.
    """
    import pandas as pd

    points = finished(frame, metric)
    values = points[metric].to_numpy(float)
    total = float(values.var())
    shares: dict[str, float] = {}
    for name in varied(points):
        levels = np.array([str(value) for value in points[name]])
        if pd.api.types.is_float_dtype(points[name]) and len(_levels(points, name)) > _MOST_LEVELS:
            ranks = points[name].rank(pct=True).to_numpy(float)
            levels = np.ceil(ranks * _MOST_LEVELS).astype(str)
        _, level, counts = np.unique(levels, return_inverse=True, return_counts=True)
        means = (np.bincount(level, values) / counts)[level]
        shares[name] = float(means.var() / total) if total else 0.0
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def pareto(frame: pd.DataFrame, metric: str, cost: str = SIDE_EFFECT) -> pd.DataFrame:
    """Points that no other point beats in the metric without more of the side effect."""
    # Both sorts keep the order of equals: of those with the same cost, the best comes first.
    ordered = finished(frame, metric).dropna(subset=[cost]).sort_values(cost, kind="stable")
    sign = 1.0 if GOALS[metric] == "minimize" else -1.0
    values = sign * ordered[metric].to_numpy(float)
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], values[:-1]]))
    return ordered.loc[values < best_before, :]


def _levels(frame: pd.DataFrame, name: str) -> set[str]:
    return {str(value) for value in frame[name]}
