import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.branches import score_continuations
from saepd.engine import pack
from saepd.engine.columns import prompt_columns, share_beginnings

texts = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8)


def test_beginnings_are_laid_out_once():
    shared = share_beginnings([[1, 2, 3], [1, 2, 4, 5], [6], [1], []])
    assert sorted(shared.tokens) == [1, 2, 3, 4, 5, 6]
    assert [[shared.tokens[c] for c in path] for path in shared.path] == [
        [1, 2, 3],
        [1, 2, 4, 5],
        [6],
        [1],
        [],
    ]
    assert shared.path[0][:2] == shared.path[1][:2]


@settings(deadline=None)
@given(texts)
def test_every_text_sees_its_own_tokens_and_no_others(rows):
    shared = share_beginnings(rows)
    for row, path in zip(rows, shared.path, strict=True):
        assert [shared.tokens[c] for c in path] == row
        for column in path:
            seen = [c for c in range(column + 1) if shared.until[c] >= column]
            assert seen == [c for c in path if c <= column]
    beginnings = {tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)}
    assert len(shared.tokens) == len(beginnings)


def test_positions_count_along_a_text(llama):
    columns = prompt_columns(llama, [[5, 6], [7]], [share_beginnings([[1, 2], [1, 3]])] * 2)
    # The prompt, then 1, 2 and 3, of which the last two stand at the same place.
    assert columns.position_ids.tolist() == [[0, 1, 2, 3, 3], [0, 0, 1, 2, 2]]


def test_texts_that_begin_alike_cost_their_beginning_once(llama):
    long = "a rather long beginning, "
    rows = [list((long + end).encode()) for end in ("so", "or so")]
    n = len(long)
    [one] = pack.pack_costs(llama, [[1]], [rows[:1]], ["answer"], 1)
    [both] = pack.pack_costs(llama, [[1]], [rows], ["answer"], 1)
    assert both - one < n


@pytest.mark.parametrize("n", [1, 3])
def test_a_long_text_is_no_deeper_than_a_short_one(llama, n):
    text = "word " * 40
    [(alone, _)] = score_continuations(llama, ["prompt::"], [[text + "x"]], [])
    [(scores, _)] = score_continuations(
        llama, ["prompt::"], [[text + "x", *(text + str(i) for i in range(n))]], []
    )
    torch.testing.assert_close(scores[0, :1], alone[0], atol=1e-4, rtol=1e-5)
