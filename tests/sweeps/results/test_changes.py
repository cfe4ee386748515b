import json
import os
from pathlib import Path

import pytest

from saepd.cli import main
from saepd.common.errors import InputError
from saepd.sweeps.point import dependencies
from saepd.sweeps.results.changes import changes, current, told_changes
from saepd.sweeps.results.frame import finished, importance, pareto, read_sweep
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.run import run_sweep


@pytest.fixture
def data(files, tmp_path):
    """A copy of the questions that a test may correct, and a function that does."""
    file = tmp_path / "items.jsonl"
    original = Path(files["data"]).read_text()
    file.write_text(original)

    def write(corrected):
        rows = [json.loads(line) for line in original.splitlines()]
        for row in rows if corrected else ():
            row["distribution"] = row["distribution"][::-1]
        file.write_text("\n".join(map(json.dumps, rows)) if corrected else original)

    return file, write


def test_a_file_corrected_in_place_leaves_the_old_results_out(sweep_of, data, tmp_path, capsys):
    file, write = data
    sweep = sweep_of(data=str(file), k=2, coefficient=[1, 3], operator="mixture")
    out = tmp_path / "out"
    run_sweep(sweep, out)
    before = read_sweep(out)
    assert told_changes(before) == ""
    write(corrected=True)
    # Nothing of the corrected file has been measured yet.
    with pytest.raises(InputError, match=r"2 points are left out.*\(data: 2\).*run it again"):
        finished(read_sweep(out), "gain")
    done = run_sweep(sweep, out)
    assert (done.n_points, done.n_finished_before, done.n_failed) == (2, 0, 0)
    frame = read_sweep(out)
    assert frame.changed.tolist() == ["data", "data", "", ""]
    assert set(finished(frame, "gain").key) == set(frame.key[2:])
    assert set(finished(frame, "gain").gain) != set(before.gain)
    assert set(pareto(frame, "gain").key) <= set(frame.key[2:])
    assert list(importance(frame, "gain")) == ["coefficient"]
    capsys.readouterr()
    assert main(["sweep", "show", str(out)]) == 0
    told = capsys.readouterr().out
    assert "best of 2 points" in told
    assert "2 points are left out, since what they were measured on has changed" in told
    # The first version again: its results count again, and need not run again.
    write(corrected=False)
    assert read_sweep(out).changed.tolist() == ["", "", "data", "data"]
    assert run_sweep(sweep, out).n_finished_before == 2


def test_without_the_file_the_latest_result_is_the_measure(sweep_of, data, tmp_path):
    file, write = data
    sweep = sweep_of(data=str(file), k=2, operator="mixture")
    run_sweep(sweep, tmp_path / "out")
    write(corrected=True)
    run_sweep(sweep, tmp_path / "out")
    os.unlink(file)
    assert read_sweep(tmp_path / "out").changed.tolist() == ["data", ""]


def outcome(key, weights="w1", dictionary="d1", code=None, **parameters):
    content = {"data": None, "model": None, "sae": None, "weights": weights}
    content |= {"dictionary": dictionary, "code": code or changes_code()}
    return PointOutcome(key, {"model": "a/hub-id", **parameters}, {"content": content})


def changes_code():
    from saepd.sweeps.point.identity import code_version

    return code_version()


def test_what_a_hub_changed_under_the_same_name_is_told():
    outcomes = [outcome("a"), outcome("b", weights="w2"), outcome("c", model="another")]
    assert changes(outcomes) == ["model", "", ""]
    outcomes = [outcome("a"), outcome("b", dictionary="d2"), outcome("c", block=20)]
    assert changes(outcomes) == ["sae", "", ""]


def test_results_of_older_code_are_told(monkeypatch):
    from dataclasses import replace

    old = outcome("a")
    stages = dependencies.STAGES
    newer = stages | {"readout": replace(stages["readout"], version=99)}
    monkeypatch.setattr("saepd.sweeps.point.identity.STAGES", newer)
    assert changes([old, outcome("b")]) == ["code", ""]
    # Before results said what they were of.
    assert changes([PointOutcome("c", {}, {"metrics": {}})]) == ["code"]


def test_a_file_that_changes_while_its_point_runs_gives_no_result(sweep_of, data, tmp_path):
    from saepd.sweeps.config import RunConfig
    from saepd.sweeps.point.run_point import Worker
    from saepd.sweeps.run import work_settings
    from saepd.sweeps.space.points import sweep_points

    file, write = data
    sweep = sweep_of(data=str(file), k=2, operator="mixture")
    [point] = sweep_points(sweep)
    write(corrected=True)
    found = Worker(work_settings(sweep, tmp_path / "out", RunConfig())).run(point)
    assert found.failed
    assert "changed while it ran" in found.result["error"]


def test_the_current_points_of_a_frame_are_all_where_nothing_is_known():
    import pandas as pd

    frame = pd.DataFrame({"gain": [1.0, 2.0]})
    assert len(current(frame)) == 2
    assert told_changes(frame) == ""


def test_failed_points_of_a_changed_file_are_told_too(sweep_of, data, tmp_path):
    file, write = data
    sweep = sweep_of(data=str(file), max_density=[0.0, 1.0], k=2)
    run_sweep(sweep, tmp_path / "out")
    write(corrected=True)
    frame = read_sweep(tmp_path / "out")
    assert sorted(frame.status) == ["failed", "finished"]
    assert set(frame.changed) == {"data"}
    assert len(ResultStore(tmp_path / "out").outcomes()) == 2
