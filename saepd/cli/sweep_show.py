"""``saepd sweep show``: what came out of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.cli.fields import argument
from saepd.cli.options import check_folder, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """\
  saepd sweep show out/layers
  saepd sweep show out/layers --metric js_distance --pictures out/pictures
  saepd sweep show out/layers --json > points.json

In Python, saepd.read_sweep("out/layers") is a frame of all points."""

_N_BEST = 10

FIRST = ("folder", "metric", "best", "pictures", "json")


@dataclass(kw_only=True)
class Options:
    """What is shown.

    Attributes:
        folder: Folder of the results, which was given as --out.
        metric: Metric that points are compared by.
        best: Points that are listed.
        pictures: Folder that parallel coordinates, heat maps and the growth with feedback are
            written to, as pages.
        json: Print all points as JSON instead.
    """

    folder: Path = argument()
    metric: str = "gain"
    best: int = _N_BEST
    pictures: Path | None = None
    json: bool = False


def run(options: Options) -> None:
    """Best points, which parameters mattered, and gain against side effect."""
    import json

    from saepd.sweeps.results.frame import finished, importance, pareto, read_sweep, varied

    if options.pictures is not None:
        check_folder(options.pictures, "--pictures")
    frame = read_sweep(options.folder)
    if options.json:
        print_json(json.loads(frame.to_json(orient="records") or "[]"))
        return
    show_best(frame, options.metric, options.best)
    shares = importance(frame, options.metric)
    print_table(
        f"share of the variance of {options.metric} that each parameter explains alone",
        ["parameter", "share"],
        [[name, f"{share:.2f}"] for name, share in shares.items()],
    )
    _show(
        f"Pareto: no point has a better {options.metric} with less side effect (kl_to_base, nats)",
        pareto(frame, options.metric),
        options.metric,
        varied(finished(frame, options.metric)),
    )
    failed = frame[(frame.status == "failed") & (frame.changed == "")]
    if len(failed):
        print(f"{len(failed)} points failed; starting the sweep again tries them again:")
        for error, n in failed.error.value_counts().items():
            print(f"  {n} x {error}")
    if options.pictures:
        from saepd.sweeps.results.pictures import write_pictures

        for path in write_pictures(frame, options.metric, options.pictures):
            print(f"picture: {path}")


def show_best(frame: pd.DataFrame, metric: str, n: int = _N_BEST) -> None:
    """The best points, one a line."""
    from saepd.sweeps.point.metrics import MEANINGS
    from saepd.sweeps.results.changes import told_changes
    from saepd.sweeps.results.frame import finished, varied

    points = finished(frame, metric)
    _show(f"best of {len(points)} points by {metric}", points.head(n), metric, varied(points))
    print(f"{metric}: {MEANINGS[metric]}")
    if changes := told_changes(frame):
        print(changes)


def _show(title: str, rows: pd.DataFrame, metric: str, names: list[str]) -> None:
    from saepd.sweeps.results.frame import told_columns

    columns = told_columns(rows, metric, names)
    headings = [c.replace("_low", " 95% from").replace("_high", " to") for c in columns]
    print_table(title, headings, [[_cell(v) for v in row] for row in rows[columns].to_numpy()])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
