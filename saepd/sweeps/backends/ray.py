"""Points on a Ray cluster: workers that keep what they captured, and lost points run again.

A worker is an actor, since an actor keeps its model and prefix from one unit to the next. The
driver gives an idle worker a unit of the prefix it has; else of one nobody has; else any that is
left. A unit sends back each point as it is finished, so when its machine dies only the points that
are missing are given to another worker.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from saepd.common.errors import InputError
from saepd.sweeps.backends.schedule import Backend, WorkUnit, next_unit, units_of
from saepd.sweeps.point.run_point import Worker, WorkSettings, failed_outcome
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.points import SweepPoint

# How often a unit may take its worker down before its points count as failed.
_MOST_LOSSES = 3


def ray_backend(
    address: str | None = None, workers: int | None = None, cpus: float = 1.0, gpus: float = 0.0
) -> Backend:
    """A backend on a Ray cluster.

    Args:
        address: Address of the cluster, or ``auto``; None starts one on this machine, or uses the
            one that this process is connected to.
        workers: Number of workers; as many as there is room for if None.
        cpus: CPU cores that each worker is given.
        gpus: GPUs that each worker is given; a fraction lets several share one.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        # Before ray is imported: it reports its use over the network otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: pip install 'saepd[ray]'") from error

    def run(points: Sequence[SweepPoint], settings: WorkSettings) -> Iterator[PointOutcome]:
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
            pool = _Pool(ray, units_of(points), settings, n, cpus, gpus)
            try:
                yield from pool.outcomes()
            finally:
                for actor in pool.actors:
                    ray.kill(actor)
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
        self._settings = settings
        self._worker: Worker | None = None

    def ready(self) -> bool:
        return True

    def run(self, unit: WorkUnit) -> Iterator[PointOutcome]:
        import ray

        self._worker = self._worker or Worker(self._settings)
        node = ray.get_runtime_context().get_node_id()
        for point in unit.points:
            outcome = self._worker.run(point)
            yield replace(outcome, result={**outcome.result, "node": node})


class _Pool:
    """The workers of one run, what each is doing, and the units nobody has yet."""

    def __init__(
        self,
        ray: Any,
        units: list[WorkUnit],
        settings: WorkSettings,
        n: int,
        cpus: float,
        gpus: float,
    ) -> None:
        self._ray, self._waiting = ray, units
        # A lost actor is made again where there is room, for as long as the sweep runs.
        kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1)(_RayWorker)
        self.actors = [kind.remote(settings) for _ in range(min(n, len(units)))]
        self._idle: list[int] = []
        self._had: dict[int, str] = {}
        self._losses: Counter[str] = Counter()
        # Worker -> its unit, the keys it has sent, and the stream they come in.
        self._busy: dict[int, tuple[WorkUnit, set[str], Any]] = {}
        self._starting: dict[Any, int] = {}
        for i in range(len(self.actors)):
            self._await_start(i)

    def outcomes(self) -> Iterator[PointOutcome]:
        """Every point's, as they come."""
        while self._waiting or self._busy:
            self._hand_out()
            streams = {stream: i for i, (_, _, stream) in self._busy.items()}
            ready, _ = self._ray.wait([*streams, *self._starting], fetch_local=False)
            for one in ready:
                if one in self._starting:
                    self._ray.get(one)
                    self._idle.append(self._starting.pop(one))
                else:
                    yield from self._next_of(streams[one])

    def _await_start(self, i: int) -> None:
        self._starting[self.actors[i].ready.options(max_task_retries=-1).remote()] = i

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            i = self._idle.pop()
            held = {group for j, group in self._had.items() if j != i}
            unit = next_unit(self._waiting, self._had.get(i), held)
            self._waiting.remove(unit)
            self._had[i] = unit.group
            stream = self.actors[i].run.options(num_returns="streaming").remote(unit)
            self._busy[i] = unit, set(), stream

    def _next_of(self, i: int) -> Iterator[PointOutcome]:
        """The next outcome of a worker's stream; none at its end; an error where it was lost."""
        unit, seen, stream = self._busy[i]
        errors = self._ray.exceptions
        try:
            outcome: PointOutcome = self._ray.get(next(stream))
        except StopIteration:
            del self._busy[i]
            self._idle.append(i)
        except errors.RayTaskError as error:
            # What a worker raises ends the sweep here as it would in this process.
            raise getattr(error, "cause", error) from error
        except errors.RayError as error:
            yield from self._lost(i, tuple(p for p in unit.points if p.key not in seen), error)
        else:
            seen.add(outcome.key)
            yield outcome

    def _lost(
        self, i: int, rest: tuple[SweepPoint, ...], error: Exception
    ) -> Iterator[PointOutcome]:
        """Put what a lost worker did not send back in front of the queue."""
        unit, _, _ = self._busy.pop(i)
        self._had.pop(i, None)
        self._await_start(i)
        if not rest:
            return
        first = rest[0]
        self._losses[first.key] += 1
        if self._losses[first.key] >= _MOST_LOSSES:
            message = f"its worker was lost {_MOST_LOSSES} times: {type(error).__name__}"
            yield failed_outcome(first, message)
            rest = rest[1:]
        if rest:
            self._waiting.insert(0, WorkUnit(unit.group, rest))
