"""Some hundred of the cases that scripts/fuzz.py runs, and that its guard sees what it is for."""

import pickle
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzzing.guard import Guard
from fuzzing.targets import Target, reader_targets

from saepd.common.errors import InputError


@pytest.fixture(scope="module")
def guard():
    return Guard()


def test_no_reader_does_more_than_read_or_refuse(guard):
    report = fuzz.fuzz(reader_targets(), 400, 7, guard)
    assert report["cases"] >= 400
    failures = {name: found["failures"] for name, found in report["targets"].items()}
    assert not any(failures.values()), failures
    for name, found in report["targets"].items():
        assert found["read"], name
        assert found["refused"] or name == "stage cache", name
    assert f"| all | {report['cases']:,} |" in fuzz.table(report)


def _raise(error):
    raise error


def _loop(folder):
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda folder: None, "read"),
        (lambda folder: (folder / "new").write_text("x"), "read"),
        (lambda folder: _raise(InputError("wrong")), "refused"),
        (lambda folder: _raise(InputError("")), "an empty message"),
        (lambda folder: _raise(InputError(f"in {sys.prefix}")), "a message names"),
        (lambda folder: _raise(KeyError("x")), "KeyError at"),
        (lambda folder: (folder.parent / "saepd-fuzz-outside").mkdir(), "os.mkdir"),
        (lambda folder: Path("outside").open("a").close(), "wrote outside"),
        (lambda folder: pickle.loads(b"cbuiltins\nlen\n."), "unpickled builtins.len"),
        (lambda folder: eval("1 + 1"), "ran code from a text"),
        (lambda folder: subprocess.run(["true"], check=True), "subprocess.Popen"),
        (_loop, "took more than"),
    ],
)
def test_the_guard_sees_what_must_not_happen(guard, tmp_path, monkeypatch, read, outcome):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = Target("x", {"file": b""}, read)
    assert fuzz.run_case(target, target.files, guard).startswith(outcome)
