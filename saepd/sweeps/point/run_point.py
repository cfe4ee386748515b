"""One point from its settings to an outcome: what every backend runs, on whichever machine."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.tracking import Tracker, TrackingConfig, track
from saepd.directions.edits import EditLatents
from saepd.directions.saving import save_to_disk
from saepd.feedback.texts import fingerprint
from saepd.sweeps.point.bench import Bench
from saepd.sweeps.point.identity import point_content, point_key
from saepd.sweeps.point.measure import measure
from saepd.sweeps.point.metrics import check_metric
from saepd.sweeps.point.stage_cache import StageCache
from saepd.sweeps.point.stages import ScoredPoint, score_point
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.points import SweepPoint, short_name

GIGABYTE = 10**9


@dataclass(frozen=True)
class WorkSettings:
    """What a worker needs beside its points.

    Attributes:
        cache: Folder of stages; shared by all workers where they share a disk.
        cache_gb: Size that the folder of stages may grow to, in units of 10^9 bytes.
        metric: Name of the metric that points are compared by; refused where the task does not
            define it.
        tracking: Whether and where each point is recorded as a W&B run.
        varied: Names of the parameters that tell points apart, for the names of W&B runs.
    """

    cache: Path
    cache_gb: float = 10.0
    metric: str = "gain"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    varied: tuple[str, ...] = ()


class Worker:
    """Runs points one after the other; what the last one loaded is there for the next."""

    def __init__(self, settings: WorkSettings) -> None:
        self.settings = settings
        self._bench = Bench()
        self._tracking = settings.tracking
        self._cache = StageCache(settings.cache, int(settings.cache_gb * GIGABYTE))

    def run(self, point: SweepPoint) -> PointOutcome:
        """The point's outcome; an error is one too, so that the sweep goes on.

        Raises:
            InputError: the disk is full, which no other point would survive either.
        """
        parameters = point.config.flat()
        name = short_name(point.config, list(self.settings.varied))
        tracking = replace(self._tracking, name=name, id=self._run_id(point))
        try:
            with track(tracking, parameters, job_type="sweep point") as tracker:
                if tracker.location is None:
                    # W&B did not start and said so: once is enough, and each try may take long.
                    self._tracking = TrackingConfig()
                scored, result = self._measured(point)
                if point_key(point.config) != point.key:
                    raise InputError("a file of this point changed while it ran: start it again")
                if tracker.location is not None:
                    _track_point(tracker, scored, result)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"no room left on the disk of {self.settings.cache}: free some or lower the "
                    "size of the cache; what is finished is kept, and the same command goes on"
                ) from error
            return failed_outcome(point, f"{type(error).__name__}: {error}", **_worker())
        return PointOutcome(point.key, parameters, result)

    def _run_id(self, point: SweepPoint) -> str | None:
        """The same each time, so that a point that was cut off and run again is one run.

        W&B's agents have their own id for the run they start.
        """
        if "WANDB_RUN_ID" in os.environ:
            return None
        tracking = self._tracking
        return f"{fingerprint(str(tracking.group), str(tracking.dir), point.key):016x}"

    def _measured(self, point: SweepPoint) -> tuple[ScoredPoint, dict[str, Any]]:
        start = time.perf_counter()
        scored = score_point(self._bench, self._cache, point.config)
        check_metric(self.settings.metric, scored.task)
        result = {
            **measure(scored, point.config.merge, point.config.draw.seed),
            "features": {
                d.perspective: d.edit.latents.tolist()
                for d in scored.directions
                if isinstance(d.edit, EditLatents)
            },
            "stages": [asdict(stage) for stage in scored.stages],
            "seconds": round(time.perf_counter() - start, 3),
            "content": point_content(point.config) | scored.loaded,
            **_worker(),
        }
        return scored, result


def failed_outcome(point: SweepPoint, error: str, **where: str) -> PointOutcome:
    """What came out of a point that has no result."""
    result = {"error": error, "content": point_content(point.config), **where}
    return PointOutcome(point.key, point.config.flat(), result, failed=True)


def _track_point(tracker: Tracker, scored: ScoredPoint, result: dict[str, Any]) -> None:
    """Metrics, table, features, and the directions with how they came about."""
    tracker.summary({k: v for k, v in result["metrics"].items() if v is not None})
    bounds = {k: v for k, v in result["intervals"].items() if v is not None}
    tracker.summary({f"{name}_interval": bound for name, bound in bounds.items()})
    tracker.log_table("perspectives", result["rows"])
    tracker.log_table("features", _feature_rows(scored))
    with tempfile.TemporaryDirectory() as folder:
        steering = Path(folder) / "steering"
        save_to_disk(scored.directions, steering)
        tracker.log_steering(steering)


def _feature_rows(scored: ScoredPoint) -> Sequence[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for direction in scored.directions:
        edit = direction.edit
        if isinstance(edit, EditLatents):
            latents = edit.latents.tolist()
            values = [None] * len(latents) if edit.values is None else edit.values.tolist()
            rows += [
                {"perspective": direction.perspective, "latent": latent, "value": value}
                for latent, value in zip(latents, values, strict=True)
            ]
    return rows


def _worker() -> dict[str, str]:
    """Which process on which machine."""
    return {"worker": f"{socket.gethostname()}-{os.getpid()}"}
