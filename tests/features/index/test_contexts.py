import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saepd.features.index.contexts import (
    BEFORE,
    N_CONTEXTS,
    N_TOP,
    NONE,
    WIDTH,
    choose_contexts,
    context_activations,
)


@given(st.integers(1, 60), st.integers(0, 10**6))
def test_contexts_are_of_different_passages_and_reach_over_the_range(n_passages, seed):
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 30, n_passages))])
    positions = np.flatnonzero(rng.random(starts[-1]) < 0.4)
    values = rng.gamma(2.0, size=len(positions)).astype(np.float32)
    chosen = choose_contexts(positions, values, starts)
    found = chosen[chosen != NONE]
    passages = np.searchsorted(starts, found, side="right") - 1
    assert len(set(passages.tolist())) == len(found)
    fires_in = len(set((np.searchsorted(starts, positions, side="right") - 1).tolist()))
    assert len(found) == min(fires_in, N_CONTEXTS)
    if len(found):
        value = dict(zip(positions.tolist(), values.tolist(), strict=True))
        strengths = [value[at] for at in found.tolist()]
        assert strengths[0] == values.max()
        tops = strengths[:N_TOP]
        assert tops == sorted(tops, reverse=True)


def test_contexts_with_room_follow_the_deciles():
    starts, positions = np.arange(1001), np.arange(1000)
    values = (np.arange(1000) + 1.0).astype(np.float32)
    chosen = choose_contexts(positions, values, starts)
    assert chosen[:N_TOP].tolist() == [999, 998, 997, 996, 995, 994]
    assert np.allclose(chosen[N_TOP:], [899, 799, 699, 599, 499, 399, 299, 199, 99, 0], atol=1)


def test_activations_over_the_window():
    positions, values = np.array([3, 5, 6]), np.array([1.0, 2.0, 3.0], dtype=np.float32)
    shown = context_activations(np.array([5, NONE]), positions, values)
    assert shown.shape == (2, WIDTH)
    at = {t - (5 - BEFORE + 1): v for t, v in ((3, 1.0), (5, 2.0), (6, 3.0))}
    assert {i: v for i, v in enumerate(shown[0].tolist()) if v} == at
    assert not shown[1].any()
