"""Ten times the rows, items or perspectives take about ten times the work, never a hundred."""

import sys

import pytest
import scaling


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


@pytest.mark.parametrize("name", scaling.STEPS)
def test_work_grows_in_proportion(tmp_path, name):
    _, base, step = scaling.STEPS[name]
    step(base, tmp_path)()
    small, large = (work(step(base * factor, tmp_path)) for factor in (1, 10))
    assert large < 15 * small


def test_the_table_names_every_step_and_its_growth():
    found = {"unit": "rows", "base": 9, "seconds": [0.1, 1, 30], "megabytes": [1, 2, 3]}
    row = "| a step | 9 rows | 0.100, 1.0 | 1.000, 2.0 | 30.000, 3.0 | 30 times |"
    assert row in scaling.table({"a step": found})
    assert scaling.measured(lambda size, folder: lambda: "x" * size, 2_000_000)[1] > 1.9
