"""A sweep from its file to a full store: what is finished is left alone, the rest is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.tracking import TrackingConfig
from saepd.sweeps.backends.ray import ray_backend
from saepd.sweeps.backends.schedule import Backend, units_of
from saepd.sweeps.backends.slurm import slurm_backend
from saepd.sweeps.config import RunConfig
from saepd.sweeps.point.metrics import GOALS, check_metric
from saepd.sweeps.point.question import draw_of, task_of
from saepd.sweeps.point.run_point import Worker, WorkSettings
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.space.parameters import point_config
from saepd.sweeps.space.points import SweepPoint, sweep_points
from saepd.sweeps.space.search import search
from saepd.sweeps.space.space import Choice
from saepd.sweeps.space.sweep_file import Sweep, load_sweep

StepReport = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SweepSummary:
    """What one call of `run_sweep` did.

    Attributes:
        n_points: Points of the sweep.
        n_finished_before: Points that were finished before, and not run again.
        n_failed: Points that ran in this call and failed.
        n_forwards: Calls of the model that this call took.
        n_forwards_saved: Calls of the model that the same points would have taken beside these, run
            one by one.
        n_prefixes: Uses of a captured prefix in this call, and how many of these were reuse.
    """

    n_points: int
    n_finished_before: int
    n_failed: int
    n_forwards: int
    n_forwards_saved: int
    n_prefixes: tuple[int, int]


def run_sweep(
    sweep: Sweep | str | Path | Mapping[str, Any],
    out: str | Path,
    config: RunConfig | None = None,
    progress: StepReport | None = None,
) -> SweepSummary:
    """Run every point of a sweep that is not finished, and keep each result as it comes.

    A call that was interrupted or killed is taken up by the next one with the same folder. Read
    what came out with `saepd.sweep_results`.

    Args:
        sweep: A sweep file, what would stand in one as a mapping, or what `saepd.load_sweep`
            made of either.
        out: Folder of the results; it may hold those of earlier sweeps, which are kept.
        config: How to run: where, with how many workers, with which cache.
        progress: Called with what is being done, the step, and the number of steps.

    Returns:
        How many points there are, ran and failed, and what they cost.

    Raises:
        InputError: a file or settings that no point can have, another process runs a sweep in this
            folder, or the disk is full. A point that fails for itself is a row with its error.
    """
    from filelock import FileLock, Timeout

    config, out = config or RunConfig(), Path(out)
    if not isinstance(sweep, Sweep):
        sweep = load_sweep(sweep)
    report = progress or (lambda *_: None)
    if sweep.method != "bayes":
        # Before anything is written or loaded.
        check_points(sweep, sweep_points(sweep, config.search_seed))
    make_folder(out)
    try:
        with FileLock(out / ".running", timeout=0):
            store = ResultStore(out)
            tally = _Tally(store, sweep, report)
            settings = work_settings(sweep, out, config)
            backend = _backend(config, out)
            if sweep.method == "bayes":
                n_parallel = 1 if config.backend == "local" else config.workers or 1
                search(
                    sweep,
                    out,
                    config.search_seed,
                    tally.finished,
                    n_parallel,
                    tally.run(backend, settings),
                )
            else:
                tally.run(backend, settings)(sweep_points(sweep, config.search_seed))
            return tally.summary()
    except Timeout as error:
        raise InputError(
            f"a sweep is running in {out}: wait for it, or use another folder"
        ) from error


def run_point(
    values: Mapping[str, Any],
    out: str | Path,
    config: RunConfig | None = None,
    metric: str = "gain",
) -> PointOutcome:
    """One point, as W&B's agents start it; what is finished is given back without running.

    Args:
        values: Parameters that are not at their defaults.
        out: Folder of the results; any number of processes may share it.
        config: How to run; of its settings, those of the cache and of tracking are used.
        metric: What the sweep is about.

    Raises:
        InputError: an unknown metric, settings that no point can have, or the disk is full.
    """
    config, out = config or RunConfig(), Path(out)
    check_metric(metric)
    sweep = Sweep(
        out.name, "grid", {k: Choice((v,)) for k, v in values.items()}, metric, GOALS[metric]
    )
    point = SweepPoint(0, point_config(values))
    check_points(sweep, [point])
    make_folder(out)
    store = ResultStore(out)
    if before := store.finished_outcome(point.key):
        return before
    settings = work_settings(sweep, out, config)
    outcome = Worker(replace(settings, varied=tuple(values))).run(point)
    store.add(outcome)
    return outcome


def check_points(sweep: Sweep, points: Sequence[SweepPoint]) -> None:
    """Refuse, before a model is loaded, what would fail at every point of a kind.

    Raises:
        InputError: no points, a task that cannot be read, too little feedback in it, or a metric
            that it does not define.
    """
    if not points:
        raise InputError("the sweep has no points: give parameters some values")
    for task, draw in dict.fromkeys((p.config.task, p.config.draw) for p in points):
        draw_of(task, draw)
        check_metric(sweep.metric, task_of(task))


def make_folder(out: Path) -> None:
    """Make the folder of a sweep.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from error


def work_settings(sweep: Sweep, out: Path, config: RunConfig) -> WorkSettings:
    """What every worker is told."""
    return WorkSettings(
        cache=(config.cache or out / "stages").resolve(),
        cache_gb=config.cache_gb,
        metric=sweep.metric,
        tracking=TrackingConfig(config.wandb, group=sweep.name, dir=str(out.resolve())),
        varied=tuple(sweep.varied),
    )


def run_local(points: Sequence[SweepPoint], settings: WorkSettings) -> Iterator[PointOutcome]:
    """One after the other in this process, those that share a prefix together."""
    worker = Worker(settings)
    for unit in units_of(points):
        for point in unit.points:
            yield worker.run(point)


def _backend(config: RunConfig, out: Path) -> Backend:
    if config.backend == "ray":
        return ray_backend(config.address, config.workers, config.cpus, config.gpus)
    if config.backend == "slurm":
        return slurm_backend(out, config)
    return run_local


@dataclass
class _Tally:
    """Keeps outcomes as they come, and counts."""

    store: ResultStore
    sweep: Sweep
    report: StepReport
    finished: dict[str, PointOutcome] = field(default_factory=dict)
    n_points: int = 0
    n_before: int = 0
    outcomes: list[PointOutcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.finished = {o.key: o for o in self.store.outcomes() if not o.failed}

    def run(
        self, backend: Backend, settings: WorkSettings
    ) -> Callable[[Sequence[SweepPoint]], None]:
        def run(points: Sequence[SweepPoint]) -> None:
            waiting = [p for p in points if p.key not in self.finished]
            self.n_points += len(points)
            self.n_before += len(points) - len(waiting)
            total = self.sweep.run_cap if self.sweep.method == "bayes" else self.n_points
            self.report("points", self.n_points - len(waiting), total or 0)
            for outcome in backend(waiting, settings) if waiting else ():
                if not self.store.add(outcome):
                    continue
                self.outcomes.append(outcome)
                if not outcome.failed:
                    self.finished[outcome.key] = outcome
                self.report("points", self.n_before + len(self.outcomes), total or 0)

        return run

    def summary(self) -> SweepSummary:
        uses = [s for o in self.outcomes for s in o.result.get("stages", ())]
        prefixes = [s for s in uses if s["kind"] == "prefix"]
        return SweepSummary(
            self.n_points,
            self.n_before,
            sum(o.failed for o in self.outcomes),
            sum(s["n_forwards"] for s in uses if not s["reused"]),
            sum(s["n_forwards"] for s in uses if s["reused"]),
            (len(prefixes), sum(s["reused"] for s in prefixes)),
        )
