"""Ten times the rows, items or perspectives take about ten times the work, never a hundred."""

import sys
from pathlib import Path

import pytest
import scaling
import torch
from scaling_steps import with_model, without_model
from scaling_steps.step import Step, measured

# Those in which Python does more than hand tensors on.
COUNTED = (
    "fit, many perspectives",
    "learn, many perspectives",
    "answer",
    "plan a sweep",
    "keep a sweep's results",
    "save and load directions",
)

# Whether the kernel lets a process begin to count its peak of memory anew.
FORGETS = Path("/proc/self/clear_refs").exists()


def work(run):
    """Calls of functions, Python's and C's: what a busy machine does not change."""
    n_calls = 0

    def count(frame, event, argument):
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return n_calls


@pytest.mark.parametrize("name", [*without_model.STEPS, *COUNTED])
def test_work_grows_in_proportion(tmp_path, name):
    step = scaling.STEPS[name]
    for folder in ("first", "once", "tenfold"):
        (tmp_path / folder).mkdir()
    step.prepare(step.base, tmp_path / "first")()
    once = work(step.prepare(step.base, tmp_path / "once"))
    tenfold = work(step.prepare(10 * step.base, tmp_path / "tenfold"))
    assert tenfold < 15 * once


def test_every_command_is_measured():
    assert set(scaling.STEPS) == set(without_model.STEPS) | set(with_model.STEPS)
    assert not set(without_model.STEPS) & set(with_model.STEPS)


def test_the_table_names_every_step_and_its_growth():
    found = {"unit": "rows", "base": 9, "seconds": [0.1, 1, 30], "megabytes": [1, 2, 3]}
    row = "| a step | 9 rows | 0.100, 1.0 | 1.000, 2.0 | 30.000, 3.0 | 30 times |"
    assert row in scaling.table({"a step": found})


@pytest.mark.parametrize("tensors", [True, False])
def test_memory_is_that_of_the_step_alone(tensors):
    def prepare(size, folder):
        # Neither what is there before is the step's, nor what was there and is freed.
        freed = "x" * 6 * size if FORGETS else ""
        del freed
        before = "y" * 2 * size
        made = torch.ones if tensors else bytearray
        return lambda: (before, made(size))

    step = Step("things", 1000, prepare, tensors=tensors)
    megabytes = measured(step, 20_000_000)[1]
    # What the process grows by is counted in pages, and other threads take and free some.
    assert megabytes == pytest.approx(80 if tensors else 20, rel=0.25)
