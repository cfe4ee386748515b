import json
import subprocess
import sys

import pytest

from saepd.sweeps.config import RunConfig
from saepd.sweeps.results.frame import read_sweep
from saepd.sweeps.run import run_sweep

OFFLINE = RunConfig(wandb="offline")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def inspect(folder, *options):
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline_runs_read_back_with_the_numbers_of_the_table(sweep_of, tmp_path):
    # One value is bad, so one run has to have failed.
    sweep = sweep_of(name="soup", max_density=[0.0, 1.0], k=2, operator=["mixture", "cad"])
    done = run_sweep(sweep, tmp_path / "out", OFFLINE)
    assert (done.n_points, done.n_failed) == (4, 2)
    frame = read_sweep(tmp_path / "out").set_index(["max_density", "operator"])
    folders = sorted((tmp_path / "out" / "wandb").glob("offline-run-*"))
    assert len(folders) == 4
    seen = set()
    for folder in folders:
        read = json.loads(inspect(folder, "--summary"))
        config, summary = read["config"], read["summary"]
        where = (config["max_density"], config["operator"])
        seen.add(where)
        row = frame.loc[where]
        assert config["k"] == 2
        assert len(config) > 25
        assert read["name"] == f"max_density {float(where[0])}, operator {where[1]}"
        records = [json.loads(line) for line in inspect(folder).splitlines()]
        started = next(r["run"] for r in records if r["type"] == "run")
        assert started["run_group"] == "soup"
        if row.status == "failed":
            assert (read["state"], read["exit_code"]) == ("failed", 1)
            assert summary["error"] == row.error
            continue
        for name in ("gain", "js_distance", "own_gain", "kl_to_base"):
            assert summary[name] == pytest.approx(row[name], abs=1e-12)
        assert summary["gain_interval"] == pytest.approx([row.gain_low, row.gain_high])
        tables = {
            name: json.loads((folder / "files" / summary[name]["path"]).read_text())
            for name in ("perspectives", "features")
        }
        columns = tables["perspectives"]["columns"]
        for line in tables["perspectives"]["data"]:
            own = dict(zip(columns, line, strict=True))
            assert own["gain"] == pytest.approx(row[f"gain/{own['perspective']}"])
        chosen = {(line[0], line[1]) for line in tables["features"]["data"]}
        assert chosen == {(p, i) for p, ids in row.features.items() for i in ids}
        [artifact] = [
            r["artifact"]
            for r in records
            if r["type"] == "artifact" and r["artifact"]["type"] == "steering"
        ]
        [story] = json.loads(artifact["metadata"])["lineages"]
        assert story["config"]["features"]["k"] == 2
        assert story["n_feedback"] == 12
    assert len(seen) == 4
    # A point that is run again is the same run to W&B.
    names = {folder.name.split("-")[-1] for folder in folders}
    run_sweep(sweep, tmp_path / "out", OFFLINE)
    again = set((tmp_path / "out" / "wandb").glob("offline-run-*")) - set(folders)
    assert len(again) == 2
    assert {folder.name.split("-")[-1] for folder in again} < names


@pytest.mark.parametrize("state", ["broken", "absent"])
def test_without_wandb_the_sweep_ends_with_one_warning(small, tmp_path, monkeypatch, caplog, state):
    def refuse(**settings):
        raise RuntimeError("no service")

    if state == "broken":
        monkeypatch.setattr("wandb.init", refuse)
    else:
        # What importing a module that is not installed comes to.
        monkeypatch.setitem(sys.modules, "wandb", None)
    done = run_sweep(small, tmp_path, OFFLINE)
    assert (done.n_points, done.n_failed) == (8, 0)
    told = [r.getMessage() for r in caplog.records if "not tracked" in r.getMessage()]
    assert len(told) == 1


def test_what_an_agent_starts_is_the_same_point(sweep_of, tmp_path, files):
    """The command that W&B's own agent builds from a sweep file, run as the agent runs it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    run_sweep(sweep_of(k=2, coefficient=3, operator="mixture"), tmp_path / "sweep")
    out = tmp_path / "agent"
    # The agent of a real sweep has its runs online; here nothing may leave the machine.
    wanted = ["saepd.cli", "sweep", "point", "--out", str(out), "--wandb", "offline"]
    command = create_sweep_command([sys.executable, "-m", *wanted, "${args_no_hyphens}"])
    values = files | {"k": 2, "coefficient": 3, "operator": "mixture"}
    arguments = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    filled = [
        a
        for part in command
        for a in (arguments["args_no_hyphens"] if part == "${args_no_hyphens}" else [part])
    ]
    done = subprocess.run(filled, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [mine], [theirs] = read_sweep(out).itertuples(), read_sweep(tmp_path / "sweep").itertuples()
    assert mine.key == theirs.key
    assert json.loads(done.stdout)["gain"] == pytest.approx(theirs.gain, abs=1e-6)
    [folder] = (out / "wandb").glob("offline-run-*")
    assert json.loads(inspect(folder, "--summary"))["summary"]["gain"] == mine.gain
