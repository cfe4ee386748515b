"""What the benchmark's files say is one thing, and its contestants do what they are timed for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "artifacts" / "results"


def script():
    spec = importlib.util.spec_from_file_location(
        "branched_forward", ROOT / "benchmarks" / "branched_forward.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_measured_numbers():
    results = json.loads((RESULTS / "benchmark.json").read_text())
    assert script().markdown(results) == (RESULTS / "benchmark.md").read_text()


def test_the_sweep_has_as_many_points_as_it_says():
    module = script()
    n = 1
    for values in module.SWEEP.values():
        n *= len(values)
    assert n == module.N_SWEEP_POINTS


def test_ratios_are_taken_round_by_round():
    row = script().row("a / b", [2.0, 9.0, 4.0], [1.0, 3.0, 1.0], "<= 1")
    assert row["median"] == 3.0
    assert row["seconds"] == [4.0, 1.0]
