import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.sweeps.point import stage_cache
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_tensors_of_any_kind_are_read_back(cache, dtype):
    made = {"x": torch.arange(6).reshape(2, 3).T.to(dtype), "one": torch.tensor(3, dtype=dtype)}
    made["none"] = torch.empty(0, 3, dtype=dtype)
    cache.get_or_compute("kind", "a", lambda: (made, 1))
    found = cache.get("kind", "a").tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in made.items())
    assert all(found[name].dtype == dtype for name in made)


@given(st.floats(0, 1, exclude_max=True), st.none() | st.binary(min_size=1, max_size=16))
@settings(max_examples=200, deadline=None)
def test_a_file_that_is_altered_anywhere_is_computed_again(tmp_path_factory, place, put_in):
    """Cut off, or with bytes overwritten: what is read is what was written, or nothing."""
    cache = StageCache(tmp_path_factory.mktemp("altered"), 10**6)
    put(cache, "a", 20)
    path = cache.path("kind", "a")
    payload = bytearray(path.read_bytes())
    start = int(place * len(payload))
    if put_in is None:
        del payload[start:]
    else:
        payload[start : start + len(put_in)] = put_in
    path.write_bytes(bytes(payload))
    found = cache.get("kind", "a")
    assert found is None or torch.equal(found.tensors["x"], torch.arange(20))


def test_a_file_of_another_stage_or_format_is_not_read(cache, monkeypatch):
    put(cache, "a")
    for kind, key in (("kind", "b"), ("other", "a")):
        path = cache.path(kind, key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cache.path("kind", "a").read_bytes())
        assert cache.get(kind, key) is None
        assert not path.exists()
    monkeypatch.setattr(stage_cache, "_FORMAT", 99)
    assert cache.get("kind", "a") is None


def test_a_folder_in_the_place_of_a_file_is_named(cache):
    cache.path("kind", "a").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot use the cached stage"):
        cache.get("kind", "a")


def test_the_folder_is_not_looked_through_for_every_file(tmp_path, monkeypatch):
    cache = StageCache(tmp_path / "stages", 10**7)
    looked = []
    evict = StageCache._evict
    monkeypatch.setattr(StageCache, "_evict", lambda self, keep: looked.append(evict(self, keep)))
    for i in range(200):
        put(cache, str(i))
    assert len(looked) <= 3


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
from saepd.common.errors import InputError
from saepd.sweeps.point import stage_cache
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
