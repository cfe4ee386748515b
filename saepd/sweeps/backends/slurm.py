"""Points as array jobs of a Slurm cluster, through submitit.

Every point a job finishes is at once a small JSON file in the sweep's folder, which is on a disk
that all nodes share. The driver moves these files into the store. So a job that is cut off loses
the point it was at, and a driver that dies loses nothing: its jobs go on, and the next driver
begins by collecting what they left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.files import read_text, write_json
from saepd.sweeps.backends.schedule import Backend, WorkUnit, units_of
from saepd.sweeps.config import RunConfig
from saepd.sweeps.point.run_point import Worker, WorkSettings, failed_outcome
from saepd.sweeps.results.outcome import (
    PointOutcome,
    read_outcome,
    value_of_json,
    written_outcome,
)
from saepd.sweeps.space.points import SweepPoint

_ROUNDS = 3
_SECONDS_BETWEEN_LOOKS = 1.0


def slurm_backend(out: Path, config: RunConfig) -> Backend:
    """A backend on a Slurm cluster, or in processes of this machine.

    Args:
        out: The sweep's folder.
        config: Its cluster, workers (jobs at a time), cpus, gpus, minutes and partition.

    Raises:
        InputError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError("submitit is not installed: pip install 'saepd[sweeps]'") from error

    inbox = out.resolve() / "inbox"

    def run(points: Sequence[SweepPoint], settings: WorkSettings) -> Iterator[PointOutcome]:
        inbox.mkdir(parents=True, exist_ok=True)
        missing = {point.key: point for point in points}
        said: dict[str, str] = {}
        for _ in range(_ROUNDS):
            for outcome in _collect(inbox):
                missing.pop(outcome.key, None)
                yield outcome
            if not missing:
                return
            executor = _executor(submitit, out, config)
            shares = deal(units_of(list(missing.values())), config.workers or 1)
            jobs = executor.map_array(
                _work, shares, [settings] * len(shares), [inbox] * len(shares)
            )
            ended = False
            while not ended:
                # Asked before the last look, so that nothing is written after it.
                ended = all(job.done() for job in jobs)
                for outcome in _collect(inbox):
                    missing.pop(outcome.key, None)
                    yield outcome
                if not ended:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            said = {
                point.key: _last_words(job)
                for job, share in zip(jobs, shares, strict=True)
                for unit in share
                for point in unit.points
            }
            if any("no room left" in words for words in said.values()):
                raise InputError(next(w for w in said.values() if "no room left" in w))
        for point in missing.values():
            message = f"its job ended {_ROUNDS} times without it: {said.get(point.key, '')}"
            yield failed_outcome(point, message)

    return run


def deal(units: Sequence[WorkUnit], n: int) -> list[list[WorkUnit]]:
    """The units in at most n shares of about as many points, prefixes kept together."""
    total = sum(len(unit.points) for unit in units)
    shares: list[list[WorkUnit]] = [[]]
    held = 0
    for unit in units:
        if held >= total * len(shares) / n and len(shares) < n:
            shares.append([])
        shares[-1].append(unit)
        held += len(unit.points)
    return shares


def _work(units: Sequence[WorkUnit], settings: WorkSettings, inbox: Path) -> None:
    """What a job does."""
    worker = Worker(settings)
    for unit in units:
        for point in unit.points:
            write_json(inbox / f"{point.key}.json", written_outcome(worker.run(point)))


def _collect(inbox: Path) -> Iterator[PointOutcome]:
    """What jobs have finished; a file goes once its outcome was taken and the next is asked for."""
    for file in sorted(inbox.glob("*.json")):
        yield read_outcome(value_of_json(read_text(file), str(file)), str(file))
        file.unlink()


def _executor(submitit: Any, out: Path, config: RunConfig) -> Any:
    executor = submitit.AutoExecutor(folder=out / "jobs", cluster=config.cluster)
    wanted: dict[str, Any] = {
        "timeout_min": config.minutes,
        "cpus_per_task": int(config.cpus),
    }
    if config.gpus:
        wanted["gpus_per_node"] = int(config.gpus)
    if config.cluster == "slurm":
        wanted["slurm_array_parallelism"] = config.workers or 1
        if config.partition:
            wanted["slurm_partition"] = config.partition
    executor.update_parameters(**wanted)
    return executor


def _last_words(job: Any) -> str:
    """The end of what a job that did not finish wrote."""
    written = (job.stderr() or "").strip().splitlines()
    return written[-1] if written else "it said nothing"
