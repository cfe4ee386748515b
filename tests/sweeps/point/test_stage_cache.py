import subprocess
import sys
import time

import pytest
import torch

from saepd.sweeps.point.stage_cache import StageCache


@pytest.fixture
def cache(tmp_path):
    return StageCache(tmp_path / "stages", 10**6)


def put(cache, key, n=100):
    return cache.get_or_compute("kind", key, lambda: ({"x": torch.arange(n)}, 3))


def test_a_stage_is_computed_once_and_read_back(cache):
    first, again = put(cache, "a"), put(cache, "a")
    assert (first.reused, again.reused, again.n_forwards) == (False, True, 3)
    assert torch.equal(first.tensors["x"], again.tensors["x"])
    assert cache.get("kind", "b") is None


def test_beyond_the_cap_the_least_recently_used_goes(tmp_path):
    cache = StageCache(tmp_path / "stages", 2600)
    for key in "ab":
        put(cache, key)
        time.sleep(0.02)
    # Read, so that b is now the oldest.
    assert cache.get("kind", "a") is not None
    time.sleep(0.02)
    put(cache, "c")
    assert [key for key in "abc" if cache.has("kind", key)] == ["a", "c"]
    # What is larger than the cap is still there for the one who made it.
    assert len(put(cache, "d", 1000).tensors["x"]) == 1000


def test_a_damaged_file_is_computed_again(cache, caplog):
    put(cache, "a")
    path = cache.path("kind", "a")
    path.write_bytes(path.read_bytes()[:50])
    assert not put(cache, "a").reused
    assert "is damaged" in caplog.text
    assert put(cache, "a").reused


def test_a_stage_that_fails_leaves_nothing(cache):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get_or_compute("kind", "a", fail)
    assert not cache.has("kind", "a")
    assert not put(cache, "a").reused


MANY = """
import sys, time, torch
from pathlib import Path
from saepd.sweeps.point.stage_cache import StageCache
cache = StageCache(Path(sys.argv[1]), int(sys.argv[2]))
n = 0
def compute():
    global n
    n += 1
    time.sleep(0.02)
    return {"x": torch.full((300,), float(i))}, 1
for turn in range(3):
    for i in range(8):
        x = cache.get_or_compute("kind", str(i), compute).tensors["x"]
        assert x.shape == (300,) and bool((x == i).all())
print(n)
"""


@pytest.mark.parametrize("cap", [10**6, 4000])
def test_several_processes_share_a_folder(tmp_path, cap):
    command = [sys.executable, "-c", MANY, str(tmp_path), str(cap)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=".") for _ in range(3)
    ]
    counts = [int(process.communicate(timeout=120)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    if cap > 10**5:
        assert sum(counts) == 8
    else:
        # Evicted while others wanted it: computed again, and right all the same.
        assert sum(counts) >= 8
        assert sum(f.stat().st_size for f in tmp_path.glob("kind/*.safetensors")) <= cap
