import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.models import batching
from saepd.models.batching import in_packs, packs, token_budget


@settings(deadline=None, max_examples=50)
@given(costs=st.lists(st.integers(1, 3000), max_size=30), budget=st.integers(1, 5000))
def test_packs_hold_everything_once_and_stay_within_the_budget(costs, budget):
    groups = list(packs(costs, budget))
    assert sorted(i for group in groups for i in group) == list(range(len(costs)))
    for group in groups:
        assert len(group) * max(costs[i] for i in group) <= budget or len(group) == 1


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        # A long text does not make short ones as long as itself; short ones share a pack.
        ([6, 706, 14], [[1], [2, 0]]),
        ([100, 90, 80, 70], [[0, 1, 2, 3]]),
        ([400, 400, 20, 20, 20], [[0, 1], [2, 3, 4]]),
        ([30, 2], [[0, 1]]),
    ],
)
def test_a_pack_holds_texts_of_like_length(costs, expected):
    assert list(packs(costs, 4096)) == expected


def test_many_pieces_are_packed_in_linear_time(llama, monkeypatch):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 40)
    looked_at = []

    class Cost(int):
        def __neg__(self):
            looked_at.append(self)
            return -int(self)

    costs = [Cost(10 + i % 7) for i in range(2000)]
    assert in_packs(llama, costs, lambda indices: indices) == list(range(2000))
    assert len(looked_at) == 2000


def test_results_come_back_in_order(llama, monkeypatch):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 10)
    seen = []

    def run(indices):
        seen.append(indices)
        return [f"result {i}" for i in indices]

    told = []
    found = in_packs(llama, [4, 9, 1, 5, 2], run, progress=lambda done, of: told.append((done, of)))
    assert found == [f"result {i}" for i in range(5)]
    assert told == [(1, 5), (3, 5), (5, 5)]
    assert seen == [[1], [3, 0], [4, 2]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_batches_are_halved_when_memory_ends(llama, monkeypatch, error):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 80)
    sizes = []

    def run(indices):
        if len(indices) > 3:
            raise error
        sizes.append(len(indices))
        return indices

    with pytest.warns(UserWarning, match="out of memory: going on with at most 40 tokens"):
        assert in_packs(llama, [10] * 8, run) == list(range(8))
    assert sizes == [2, 2, 2, 2]


def test_a_prompt_that_no_memory_holds_is_refused(llama):
    def run(indices):
        raise torch.OutOfMemoryError

    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(InputError, match="out of memory with a single prompt of 7 tokens"),
    ):
        in_packs(llama, [7, 7], run)


def test_other_errors_are_not_taken_for_a_lack_of_memory(llama):
    calls = []

    def run(indices):
        calls.append(indices)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_packs(llama, [7, 7], run)
    assert len(calls) == 1


def test_the_budget_follows_the_free_memory(llama, monkeypatch):
    psutil = pytest.importorskip("psutil")
    assert token_budget(llama) == batching._ENOUGH_ON_CPU
    free = type("Memory", (), {"available": 100 * batching.bytes_per_token(llama)})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert token_budget(llama) == 50
