"""Run the sweeps of the record, and put what is quoted where the documentation takes it from.

    python scripts/record_sweeps.py --data DATA

Work is kept in out/record, so a run that was stopped goes on. Each sweep leaves a folder in
artifacts/results: summary.json, table.md, and its pictures as plotly JSON, and as PNG where kaleido
finds a browser.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from saepd.common.files import write_atomically, write_json
from saepd.sweeps.config import RunConfig
from saepd.sweeps.results.changes import current
from saepd.sweeps.results.frame import finished, importance, pareto, read_sweep, varied
from saepd.sweeps.results.pictures import pictures_of
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.sweep_file import load_sweep

ROOT = Path(__file__).parents[1]

# Name of the results -> sweep file, its data, the metric, and a merge that is added afterwards.
RECORD: dict[str, tuple[str, str, str, dict[str, Any] | None]] = {
    "sweep_layers": (
        "layers",
        "globalopinionqa.json",
        "gain",
        {"operator": "pluralistic", "reading": "magnitude"},
    ),
    "study/globalopinionqa": ("study_globalopinionqa", "globalopinionqa.json", "own_gain", None),
    "study/hs_brexit": ("study_hs_brexit", ".", "own_gain", None),
}
_COUNTS = ["n_forwards", "n_forwards_saved"]


def run(name: str, data: Path, out: Path) -> None:
    """Finish one sweep, and keep what is quoted."""
    file, where, metric, added = RECORD[name]
    path = ROOT / "scripts" / "sweeps" / f"{file}.yaml"
    fixed = {"data": str(data / where)}
    folder = out / name
    run_sweep(load_sweep(path, fixed), folder, RunConfig(), _say)
    frame: Any = current(read_sweep(folder))
    if added:
        # The points of the file itself, without those of an earlier call's addition.
        frame = frame[frame.reading == "magnitude-sized"]
    summary = {
        "command": f"saepd sweep scripts/sweeps/{file}.yaml --set data=DATA/{where}",
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "n_points": len(frame),
        "n_failed": int((frame.status == "failed").sum()),
        "seconds": round(float(frame.seconds.sum()), 1),
        **{count: int(frame[count].sum()) for count in _COUNTS},
        "importance": importance(frame, metric),
        "points": _points(finished(frame, metric), metric),
    }
    if added:
        run_sweep(load_sweep(path, fixed | added), folder, RunConfig(), _say)
        more: Any = current(read_sweep(folder))
        more = more[more.reading == added["reading"]]
        summary["one_merge_added"] = {
            "n_points": len(more),
            "n_forwards": int(more.n_forwards.sum()),
            "seconds": round(float(more.seconds.sum()), 1),
        }
    target = ROOT / "artifacts" / "results" / name
    write_json(target / "summary.json", summary)
    write_atomically(target / "table.md", (_table(frame, metric, summary) + "\n").encode())
    if "n_feedback" in varied(frame):
        write_atomically(target / "growth.md", (_growth(frame, metric) + "\n").encode())
    for title, figure in pictures_of(frame, metric).items():
        write_atomically(target / f"{title}.json", (figure.to_json() or "").encode())
        try:
            figure.write_image(target / f"{title}.png", width=1100, height=500)
        except (ImportError, ValueError, RuntimeError) as error:
            print(f"no PNG of {title}: {str(error).splitlines()[0]}")


def _points(frame: Any, metric: str) -> list[dict[str, Any]]:
    bounds = [f"{metric}_low", f"{metric}_high"]
    perspective_columns = [column for column in frame if column.startswith(f"{metric}/")]
    columns = [*varied(frame), metric, *bounds, *perspective_columns, "base", "kl_to_base"]
    return json.loads(frame[columns].round(6).to_json(orient="records") or "[]")


def _table(frame: Any, metric: str, summary: dict[str, Any]) -> str:
    names = varied(frame)
    front = set(pareto(frame, metric).index)
    lines = [
        f"| {' | '.join(names)} | {metric} | 95% interval | KL to base, nats | Pareto |",
        "| --- " * (len(names) + 4) + "|",
    ]
    best: Any = finished(frame, metric)
    shown = [*best.index[:5], *(i for i in best.index[5:] if i in front)]
    for i in shown:
        row = best.loc[i]
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        lines.append(
            f"| {' | '.join(str(row[name]) for name in names)} | {row[metric]:+.4f} "
            f"| {low:+.4f} to {high:+.4f} | {row.kl_to_base:.4f} | {'yes' if i in front else ''} |"
        )
    excludes = int((best[f"{metric}_low"] > 0).sum())
    worse = int((best[f"{metric}_high"] < 0).sum())
    shares = ", ".join(f"{name} {share:.2f}" for name, share in summary["importance"].items())
    lines += [
        "",
        f"{summary['n_points']} points in {summary['seconds']:.0f} seconds with one thread, "
        "on a machine that other work shared: "
        f"{summary['n_forwards']} forward passes done, {summary['n_forwards_saved']} saved. "
        f"The 95% interval of the {metric} is above zero at {excludes} points and below zero at "
        f"{worse}; at so many points some are by chance. Share of variance that each parameter "
        f"explains alone: {shares}.",
    ]
    if "one_merge_added" in summary:
        more = summary["one_merge_added"]
        lines[-1] += (
            f" One merge added: {more['n_points']} more points, {more['n_forwards']} forward "
            f"passes, {more['seconds']:.0f} seconds."
        )
    return "\n".join(lines)


def _growth(frame: Any, metric: str) -> str:
    """The metric by the amount of feedback, over all other settings."""
    lines = [
        f"| feedback per perspective | median {metric} | middle half | points above zero | best |",
        "| --- | --- | --- | --- | --- |",
    ]
    points: Any = finished(frame, metric)
    # Own branches know no merge: points that differ in it only are one.
    if metric == "own_gain":
        points = points.drop_duplicates([n for n in varied(points) if n != "operator"])
    for n, group in points.groupby("n_feedback"):
        low, middle, high = group[metric].quantile([0.25, 0.5, 0.75])
        lines.append(
            f"| {n} | {middle:+.4f} | {low:+.4f} to {high:+.4f} "
            f"| {int((group[metric] > 0).sum())} of {len(group)} | {group[metric].max():+.4f} |"
        )
    return "\n".join(lines)


def _say(what: str, step: int, steps: int) -> None:
    if step % 20 == 0 or step == steps:
        print(f"{what} {step}/{steps}", flush=True)


def main() -> int:
    """Run what is asked for, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "record")
    parser.add_argument("names", nargs="*", default=list(RECORD), metavar="name")
    options = parser.parse_args()
    for name in options.names:
        if name not in RECORD:
            parser.error(f"no results are called {name}: there are {', '.join(RECORD)}")
        run(name, options.data, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
