from __future__ import annotations

import builtins
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saepd.common.errors import InputError
from saepd.common.tracking import Tracker, TrackingConfig, track
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.saving import save_to_disk


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackingConfig:
    """Offline, with all that W&B keeps outside the run's folder in the test's folder too."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    # Set by tracking in offline mode; listed here so that it is undone.
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return TrackingConfig("offline", name="first", group="sweep", dir=str(tmp_path / "new" / "out"))


def inspect(folder: str | Path, *options: str) -> str:
    """What W&B's own reader says of a run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def summarise(folder: str | Path) -> dict[str, Any]:
    return json.loads(inspect(folder, "--summary"))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What tracking told; W&B's own loggers write to the same place at lower levels."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_an_offline_run_reads_back(
    offline: TrackingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "my steering"
    story = {"model": "tiny", "config": {"features": {"k": 8}}}
    directions = [
        Direction(who, "blocks.1.hook_resid_post", AddVector(torch.ones(4)), lineage=story)
        for who in ("left", "right")
    ]
    save_to_disk(directions, folder)

    with track(offline, {"fit": {"k": 8}}, job_type="demo") as run:
        run.log({"js": 0.5})
        run.log({"js": 0.25, "macro_f1": 0.75})
        run.log_table("merges", [{"merge": "mixture", "js": 0.5}, {"merge": 1, "alpha": None}])
        run.log_steering(folder)
        run.summary({"best": {"merge": "mixture"}})
        location = run.location

    assert not warnings_in(caplog)
    assert location is not None
    assert Path(location).parent == tmp_path / "new" / "out" / "wandb"
    read = summarise(location)
    assert read["state"] == "finished"
    assert read["exit_code"] == 0
    assert (read["project"], read["name"]) == ("saepd", "first")
    assert read["config"] == {"fit": {"k": 8}}
    assert read["summary"]["js"] == 0.25
    assert read["summary"]["macro_f1"] == 0.75
    assert read["summary"]["best"] == {"merge": "mixture"}
    table = json.loads((Path(location) / "files" / read["summary"]["merges"]["path"]).read_text())
    assert table["columns"] == ["merge", "js", "alpha"]
    assert table["data"] == [["mixture", 0.5, None], [1, None, None]]

    records = [json.loads(line) for line in inspect(location).splitlines()]
    started = next(r["run"] for r in records if r["type"] == "run")
    assert (started["job_type"], started["run_group"]) == ("demo", "sweep")
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [row["js"] for row in history[:2]] == [0.5, 0.25]
    (artifact,) = (
        r["artifact"]
        for r in records
        if r["type"] == "artifact" and r["artifact"]["type"] == "steering"
    )
    assert artifact["name"] == "steering-my-steering"
    files = [entry["path"] for entry in artifact["manifest"]["contents"]]
    assert sorted(files) == ["steering.json", "steering.safetensors"]
    metadata = json.loads(artifact["metadata"])
    assert [d["perspective"] for d in metadata["directions"]] == ["left", "right"]
    # Saving adds how model and SAE were loaded.
    assert [{name: told[name] for name in story} for told in metadata["lineages"]] == [story]


def test_a_failing_body_marks_the_run_as_failed(offline: TrackingConfig):
    def body() -> None:
        with track(offline, {}) as run:
            locations.append(run.location or "")
            raise ValueError("row 3 has no answer")

    locations: list[str] = []
    with pytest.raises(ValueError, match="row 3"):
        body()
    read = summarise(locations[0])
    assert (read["state"], read["exit_code"]) == ("failed", 1)
    assert read["summary"]["error"] == "ValueError: row 3 has no answer"


def test_a_run_the_caller_has_open_is_left_alone(offline: TrackingConfig, tmp_path: Path):
    import wandb

    own = wandb.init(
        mode="offline", dir=tmp_path, settings=wandb.Settings(console="off", silent=True)
    )
    try:
        with track(offline, {}) as run:
            run.log({"js": 0.5})
            assert run.location != str(Path(own.dir).parent)
        own.log({"loss": 1.0})
        own_folder = Path(own.dir).parent
    finally:
        own.finish()
    read = summarise(own_folder)["summary"]
    assert read["loss"] == 1
    assert "js" not in read


def test_off_never_imports_wandb(tmp_path: Path):
    code = """
import sys
from saepd.common.tracking import TrackingConfig, track
with track(TrackingConfig(), {"k": 8}, job_type="demo") as run:
    run.log({"js": 0.5})
    run.log_table("merges", [{"js": 0.5}])
    run.log_steering("no/such/folder")
    run.summary({"js": 0.5})
    assert run.location is None
assert "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
    assert not list(tmp_path.iterdir())


def test_missing_wandb_warns_once(
    offline: TrackingConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "wandb":
            raise ImportError("protobuf is too old")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    use_untracked(offline)
    (warning,) = warnings_in(caplog)
    assert "not tracked" in warning
    assert "protobuf is too old" in warning


def test_wandb_that_does_not_start_warns_once(
    offline: TrackingConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(**settings: Any) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr("wandb.init", refuse)
    use_untracked(offline)
    (warning,) = warnings_in(caplog)
    assert "no service" in warning


def use_untracked(config: TrackingConfig) -> None:
    """Use everything that a tracker has; nothing of it may raise."""
    with track(config, {}) as run:
        run.log({"js": 0.5})
        run.log_table("merges", [{"js": 0.5}])
        run.log_steering("no/such/folder")
        run.summary({"js": 0.5})
        assert run.location is None


class BrokenRun:
    """A run whose service died: every call raises."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(f"{name}: the service is gone")


def test_wandb_that_dies_on_the_way_warns_once(caplog: pytest.LogCaptureFixture):
    tracker = Tracker(BrokenRun())
    tracker.log({"js": 0.5})
    tracker.summary({"js": 0.5})
    tracker._finish()
    (warning,) = warnings_in(caplog)
    assert "log: the service is gone" in warning


def test_one_refused_value_does_not_lose_the_rest(
    offline: TrackingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with track(offline, {}) as run:
        run.log_steering(tmp_path / "nowhere")
        run.log({"js": 0.5})
        location = run.location or ""
    (warning,) = warnings_in(caplog)
    assert "FileNotFoundError" in warning
    assert "nowhere" in warning
    read = summarise(location)
    assert read["state"] == "finished"
    assert read["summary"]["js"] == 0.5


def test_unknown_mode_is_refused():
    with pytest.raises(InputError, match="unknown tracking mode 'on': use off, offline or online"):
        TrackingConfig("on")  # pyright: ignore[reportArgumentType]
