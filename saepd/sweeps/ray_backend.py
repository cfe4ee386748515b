"""Points on a Ray cluster: workers that keep what they captured, and lost points run again.

A worker is an actor, since an actor keeps its model and prefix from one unit to the next. The
driver gives an idle worker a unit of the prefix it has; else of one nobody has; else any that is
left. A unit sends back each point as it is finished, so when its machine dies only the points that
are missing are given to another worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saepd.errors import InputError
from saepd.sweeps.points import Point
from saepd.sweeps.run_point import Worker, WorkSettings
from saepd.sweeps.schedule import Unit, next_unit, units_of
from saepd.sweeps.store import Outcome

if TYPE_CHECKING:
    from saepd.sweeps.run import Backend

# How often a unit may take its worker down before its points count as failed.
_MOST_LOSSES = 3
_SECONDS_BETWEEN_LOOKS = 5.0


def ray_backend(
    address: str | None = None, workers: int | None = None, cpus: float = 1.0, gpus: float = 0.0
) -> Backend:
    """A backend on a Ray cluster.

    Args:
        address: Of the cluster, or ``auto``; None starts one on this machine, or uses the one this
            process is connected to.
        workers: How many; as many as there is room for if None.
        cpus: Of each worker.
        gpus: Of each worker; a fraction lets several share one.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        # Before ray is imported: it reports its use over the network otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: pip install 'saepd[ray]'") from error

    def run(points: Sequence[Point], settings: WorkSettings) -> Iterator[Outcome]:
        started = not ray.is_initialized()
        if started:
            _connect(ray, address)
        try:
            have = ray.cluster_resources()
            room = int(have.get("GPU", 0) / gpus) if gpus else int(have.get("CPU", 0) / cpus)
            n = workers or room
            if n < 1:
                raise InputError(
                    f"the Ray cluster has no room for a worker of {cpus} CPUs and {gpus} GPUs: it "
                    f"has {have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
                )
            yield from _drive(ray, units_of(points), settings, n, cpus, gpus)
        finally:
            if started:
                ray.shutdown()

    return run


def _connect(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "on this machine"
        raise InputError(f"no Ray cluster {where}: {error}") from error


class _RayWorker:
    """A worker in a process of Ray's."""

    def __init__(self, settings: WorkSettings) -> None:
        from saepd.cli.options import quiet_libraries

        quiet_libraries()
        self._settings = settings
        self._worker: Worker | None = None

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Iterator[Outcome]:
        import ray

        self._worker = self._worker or Worker(self._settings)
        node = ray.get_runtime_context().get_node_id()
        for point in unit.points:
            outcome = self._worker.run(point)
            yield replace(outcome, result={**outcome.result, "node": node})


def _drive(
    ray: Any, units: list[Unit], settings: WorkSettings, n: int, cpus: float, gpus: float
) -> Iterator[Outcome]:
    # A lost actor is made again where there is room, for as long as the sweep runs.
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1}
    kind = ray.remote(**options)(_RayWorker)
    actors = [kind.remote(settings) for _ in range(min(n, len(units)))]
    had: dict[int, str] = {}
    busy: dict[int, tuple[Unit, set[str], Any]] = {}
    losses: dict[str, int] = {}
    starting = {
        actor.ready.options(max_task_retries=-1).remote(): i for i, actor in enumerate(actors)
    }
    waiting = list(units)
    idle: list[int] = []
    try:
        while waiting or busy:
            while waiting and idle:
                i = idle.pop()
                held = {group for j, group in had.items() if j != i}
                unit = next_unit(waiting, had.get(i), held)
                waiting.remove(unit)
                had[i] = unit.group
                stream = actors[i].run.options(num_returns="streaming").remote(unit)
                busy[i] = unit, set(), stream
            streams = {stream: i for i, (_, _, stream) in busy.items()}
            ready, _ = ray.wait(
                [*streams, *starting], timeout=_SECONDS_BETWEEN_LOOKS, fetch_local=False
            )
            for one in ready:
                if one in starting:
                    i = starting.pop(one)
                    ray.get(one)
                    idle.append(i)
                    continue
                i = streams[one]
                unit, seen, stream = busy[i]
                try:
                    outcome: Outcome = ray.get(next(stream))
                except StopIteration:
                    del busy[i]
                    idle.append(i)
                    continue
                except ray.exceptions.RayError as error:
                    if isinstance(error, ray.exceptions.RayTaskError):
                        # What a worker raises ends the sweep here as it would in this process.
                        raise getattr(error, "cause", error) from error
                    del busy[i]
                    had.pop(i, None)
                    starting[actors[i].ready.options(max_task_retries=-1).remote()] = i
                    rest = tuple(p for p in unit.points if p.key not in seen)
                    first = rest[0].key
                    losses[first] = losses.get(first, 0) + 1
                    if losses[first] >= _MOST_LOSSES:
                        told = f"its worker was lost {_MOST_LOSSES} times: {type(error).__name__}"
                        yield Outcome(first, rest[0].config.flat(), {"error": told}, failed=True)
                        rest = rest[1:]
                    if rest:
                        waiting.insert(0, Unit(unit.group, rest))
                    continue
                seen.add(outcome.key)
                yield outcome
    finally:
        for actor in actors:
            ray.kill(actor)
