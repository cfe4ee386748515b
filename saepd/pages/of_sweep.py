"""The report of a sweep: the best points, which parameters mattered, gain against side effect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saepd.common.html import Html, bar, joined, note, table
from saepd.pages.page import Section
from saepd.pages.svg import Measured, intervals_picture, points_picture
from saepd.sweeps.point.metrics import GOALS, MEANINGS, SIDE_EFFECT
from saepd.sweeps.results.changes import told_changes
from saepd.sweeps.results.frame import (
    finished,
    importance,
    pareto,
    read_sweep,
    told_columns,
    varied,
)
from saepd.sweeps.results.pictures import short

if TYPE_CHECKING:
    import pandas as pd

_N_BEST = 20


def sweep_sections(folder: Path, metric: str) -> tuple[str, str, list[Section]]:
    """Title, finding and parts of a sweep's report.

    Args:
        folder: What was given as ``--out``.
        metric: What points are compared by.

    Raises:
        InputError: the folder holds no sweep, or no point has the metric.
    """
    frame = read_sweep(folder)
    points = finished(frame, metric)
    names = varied(points)
    shares = importance(frame, metric)
    sections = [
        Section("Best points", _best(points.head(_N_BEST), metric, names)),
        Section(
            "Which parameters mattered",
            joined(
                note(f"Share of the variance of {metric} that each parameter explains alone."),
                table(["parameter", "share"], [[name, bar(s)] for name, s in shares.items()]),
            ),
        ),
    ]
    if SIDE_EFFECT in points and metric != SIDE_EFFECT and len(points[SIDE_EFFECT].dropna()):
        front = pareto(frame, metric)
        sections.append(Section(f"{metric} against side effect", _costs(points, front, metric)))
    if failed := _failed(frame):
        sections.append(Section("Failed points", failed))
    sections.append(Section("Parameters that were not varied", _fixed(points, names)))
    return f"Sweep of {len(points)} points by {metric}", _lead(points, metric, names), sections


def _lead(points: pd.DataFrame, metric: str, names: list[str]) -> str:
    best = _records(points)[0]
    where = ", ".join(f"{name} {short(best[name])}" for name in names) or "the only setting"
    interval = ""
    low, high = (_finite(best.get(f"{metric}_{end}")) for end in ("low", "high"))
    if low is not None and high is not None:
        interval = f" (95% interval {low:+.3f} to {high:+.3f})"
    changes = told_changes(points)
    return (
        f"Best of {len(points)} points: {metric} {best[metric]:+.4f}{interval}, with {where}. "
        f"The best of many looks better than it is.{f' {changes}' if changes else ''}"
    )


def _best(best: pd.DataFrame, metric: str, names: list[str]) -> Html:
    columns = told_columns(best, metric, names)
    records = _records(best)
    rows = [
        Measured(
            " ".join(short(row[name]) for name in names) or "the only setting",
            row[metric],
            _finite(row.get(f"{metric}_low")),
            _finite(row.get(f"{metric}_high")),
        )
        for row in records
    ]
    better = "higher is better" if GOALS[metric] == "maximize" else "lower is better"
    return joined(
        note(f"{metric}: {MEANINGS[metric]}; {better}"),
        intervals_picture(rows, metric),
        table(columns, [[_cell(row[c]) for c in columns] for row in records], digits=4),
    )


def _costs(points: pd.DataFrame, front: pd.DataFrame, metric: str) -> Html:
    on_front = set(front["key"])
    names = varied(points)
    plotted = [
        (
            float(row[SIDE_EFFECT]),
            float(row[metric]),
            " ".join(f"{name} {short(row[name])}" for name in names),
            row["key"] in on_front,
        )
        for row in _records(points)
    ]
    columns = [*names, metric, SIDE_EFFECT]
    return joined(
        points_picture(plotted, f"{SIDE_EFFECT}, nats", metric),
        note("Points that no other beats without more of the side effect are drawn stronger."),
        table(columns, [[_cell(row[c]) for c in columns] for row in _records(front)], digits=4),
    )


def _failed(frame: pd.DataFrame) -> Html | None:
    failed = frame[(frame.status == "failed") & (frame.changed == "")]
    if not len(failed):
        return None
    counts = failed.error.value_counts()
    return table(["points", "error"], [[int(n), str(error)] for error, n in counts.items()])


def _fixed(points: pd.DataFrame, names: list[str]) -> Html:
    from saepd.sweeps.space.parameters import parameter_types

    fixed = [n for n in parameter_types() if n in points and n not in names]
    return table(["parameter", "value"], [[n, short(points[n].iloc[0])] for n in fixed])


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _cell(value: Any) -> Any:
    return float(value) if isinstance(value, float) else str(value)
