"""``saepd sweep``: every point of a sweep file, resumed where it stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.fields import argument
from saepd.cli.options import check_folder, print_table
from saepd.common.progress import progress_bar
from saepd.sweeps.config import RunConfig

if TYPE_CHECKING:
    from saepd.sweeps.space.sweep_file import Sweep

EXAMPLES = """\
  saepd sweep scripts/sweeps/survey.yaml --out out/survey --dry-run
  saepd sweep scripts/sweeps/survey.yaml --out out/survey
  saepd sweep scripts/sweeps/survey.yaml --out out/survey --backend ray
  saepd sweep show out/survey
  saepd sweep point --out out/survey block=15 k=8

A sweep that was stopped goes on where it stopped: start it again. A sweep file
is in W&B's format:

  method: grid                                # or random, bayes
  metric: {name: gain}
  parameters:
    block: {values: [10, 15, 20]}
    coefficient: {values: [1, 4]}
    operator: {values: [mixture, pluralistic]}"""

FIRST = ("file", "out", "set", "dry_run", "backend", "workers")


@dataclass(kw_only=True)
class Options:
    """What is swept, and on what.

    Attributes:
        file: Sweep file, in W&B's format.
        out: Folder that results are written to.
        set: Values as NAME=VALUE, such as data=mine/globalopinionqa.json, in the place of what the
            file says.
        dry_run: Print points, stages and cost, and run nothing.
    """

    file: Path = argument()
    out: Path
    set: list[str] = field(default_factory=list)
    dry_run: bool = False
    how: RunConfig = field(default_factory=RunConfig)


def run(options: Options) -> None:
    """Run what is not finished, and say what it cost and what is best."""
    from saepd.cli.sweep_point import parse_values
    from saepd.cli.sweep_show import show_best
    from saepd.sweeps.results.frame import read_sweep
    from saepd.sweeps.run import run_sweep
    from saepd.sweeps.space.sweep_file import load_sweep

    check_folder(options.out)
    sweep = load_sweep(options.file, parse_values(options.set))
    if options.dry_run:
        _dry_run(sweep, options.out, options.how.search_seed)
        return
    began = time.perf_counter()
    with progress_bar("starting") as report:
        summary = run_sweep(sweep, options.out, options.how, report)
    ran = summary.n_points - summary.n_finished_before
    print(
        f"{summary.n_points} points: {summary.n_finished_before} were finished, {ran} run in "
        f"{time.perf_counter() - began:.1f} seconds, {summary.n_failed} of these failed"
    )
    print(
        f"forward passes: {summary.n_forwards} done, {summary.n_forwards_saved} saved "
        f"(each point alone would have taken {summary.n_forwards + summary.n_forwards_saved})"
    )
    if summary.n_points > summary.n_failed:
        show_best(read_sweep(options.out), sweep.metric)
    print(f"results in {options.out}: saepd sweep show {options.out}")


def _dry_run(sweep: Sweep, out: Path, seed: int) -> None:
    from saepd.sweeps.results.store import RESULTS_FILE, ResultStore
    from saepd.sweeps.run import check_points
    from saepd.sweeps.space.plan import plan_sweep, seconds_a_pass
    from saepd.sweeps.space.points import short_name, sweep_points

    if sweep.method == "bayes":
        print(f"bayes: {sweep.run_cap} points, each chosen by the results of those before it")
        return
    points = sweep_points(sweep, seed)
    check_points(sweep, points)
    store = ResultStore(out, create=False) if (out / RESULTS_FILE).exists() else None
    finished = store.finished() if store else set()
    plan = plan_sweep(points, finished)
    for point in points:
        mark = "finished" if point.key in finished else "to run"
        print(f"{point.number:>5}  {mark:<9} {short_name(point.config, sweep.varied)}")
    print_table(
        f"{plan.n_points} points, {plan.n_finished} finished",
        ["stage", "different ones"],
        [[kind, str(n)] for kind, n in plan.stages.items()],
    )
    print(
        f"texts to run, times branches: at most {plan.passes}; every point alone: "
        f"{plan.passes_alone}"
    )
    if store and (seconds := seconds_a_pass(store.outcomes())):
        print(
            f"at the speed of the points in {out}: about {plan.passes * seconds / 60:.1f} minutes"
        )
    else:
        print("how long that takes is told once a point of this sweep has run")
