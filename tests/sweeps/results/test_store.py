import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saepd.common.errors import InputError
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import RESULTS_FILE, ResultStore


def outcome(key="a", failed=False, value=1.0):
    result = {"error": "no"} if failed else {"metrics": {"gain": value}}
    return PointOutcome(key, {"k": 3, "perspectives": ["A"]}, result, failed)


def test_what_is_added_reads_back_and_nothing_is_doubled(tmp_path):
    store = ResultStore(tmp_path)
    assert store.add(outcome("a"))
    assert not store.add(outcome("a", value=2.0))
    assert store.add(outcome("b", failed=True))
    assert store.add(outcome("b", failed=True))
    assert ResultStore(tmp_path).outcomes() == [outcome("a"), outcome("b", failed=True)]
    assert store.finished() == {"a"}
    # What failed may succeed later, and stays finished whatever fails beside it.
    assert store.add(outcome("b"))
    store.add(outcome("b", failed=True))
    assert store.outcomes() == [outcome("a"), outcome("b")]


def test_several_processes_add_to_one_store(tmp_path):
    code = """
import sys
from pathlib import Path
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import ResultStore
store = ResultStore(Path(sys.argv[1]))
print(sum(store.add(PointOutcome(str(i), {}, {"metrics": {}})) for i in range(20)))
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert sum(int(p.communicate(timeout=120)[0]) for p in running) == 20
    assert len(ResultStore(tmp_path).outcomes()) == 20


def test_no_store_and_no_database_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        ResultStore(tmp_path, create=False)
    (tmp_path / RESULTS_FILE).write_text("no database, but long enough to be mistaken for one" * 40)
    with pytest.raises(InputError, match="cannot be used as a store of results"):
        ResultStore(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], check=False)
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_loses_nothing_that_is_finished(small_disk, small, tmp_path):
    from saepd.sweeps.config import RunConfig
    from saepd.sweeps.run import run_sweep

    out = small_disk / "out"
    filler = small_disk / "filler"
    # Room for the store and the first stages, but not for all branches.
    run_sweep(small, tmp_path / "elsewhere")
    needed = sum(f.stat().st_size for f in (tmp_path / "elsewhere").rglob("*") if f.is_file())
    filler.write_bytes(b"x" * (3 * 2**20 - needed + 30_000 - 4096 * 8))
    with pytest.raises(InputError, match="no room left"):
        run_sweep(small, out, RunConfig())
    kept = ResultStore(out, create=False).outcomes() if (out / RESULTS_FILE).exists() else []
    assert not any(o.failed for o in kept)
    filler.unlink()
    done = run_sweep(small, out)
    assert done.n_finished_before == len(kept)
    assert {o.key for o in ResultStore(out).outcomes()} == {
        o.key for o in ResultStore(Path(tmp_path / "elsewhere")).outcomes()
    }


def test_a_store_on_a_full_disk_says_so(small_disk):
    store = ResultStore(small_disk)
    store.add(outcome("a"))
    (small_disk / "filler").write_bytes(b"x" * (3 * 2**20 - 4096 * 12))
    big = [PointOutcome(f"b{i}", {"text": "x" * 200_000}, {"metrics": {}}) for i in range(20)]
    with pytest.raises(InputError, match="no room left"):
        list(map(store.add, big))
    (small_disk / "filler").unlink()
    assert store.outcomes()[0] == outcome("a")
    assert store.add(big[-1])
