"""A step whose costs are measured at several sizes, and how they are measured."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

# What is measured at a size: made ready first, so that only the step itself is timed.
Prepared = Callable[[], object]


@dataclass(frozen=True)
class Step:
    """What is done at growing sizes.

    Attributes:
        unit: What its size counts.
        base: Its usual size.
        prepare: From a size and an empty folder to what is measured.
        factors: How many times the usual size it is run at.
        tensors: Whether it holds tensors, whose memory Python cannot count.
    """

    unit: str
    base: int
    prepare: Callable[[int, Path], Prepared]
    factors: tuple[int, ...] = (1, 10, 100)
    tensors: bool = False


def bound(function: Callable[..., object], *arguments: object) -> Prepared:
    """The function with its arguments, to be called later."""
    return lambda: function(*arguments)


def measured(step: Step, size: int) -> tuple[float, float]:
    """(seconds of processor time, megabytes) of one step.

    Megabytes are what Python's objects take at the peak, or, of a step that holds tensors, what the
    process grew by beyond what the step had taken at its usual size. Each step runs in a process
    of its own, a copy of this one, so that none finds memory that an earlier one has left behind.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = fork.Process(target=_measure, args=(step, size, Path(folder), theirs))
        process.start()
        theirs.close()
        try:
            return ours.recv()
        finally:
            process.join()


def _measure(step: Step, size: int, folder: Path, pipe: Connection) -> None:
    # Modules that load late, and pages that are read for the first time, are no part of it.
    step.prepare(step.base, _new(folder))()
    run = step.prepare(size, _new(folder))
    # Nor is looking for garbage among all that was there before.
    gc.collect()
    gc.freeze()
    _forget_the_peak()
    before = _peak_megabytes()
    start = time.process_time()
    run()
    seconds = time.process_time() - start
    megabytes = _peak_megabytes() - before
    if not step.tensors:
        run = step.prepare(size, _new(folder))
        tracemalloc.start()
        run()
        megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    pipe.send((seconds, megabytes))


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _forget_the_peak() -> None:
    # What was freed since would otherwise hide as much of what the step takes.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
