import pytest
from hypothesis import given
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.metrics.repetition import repetition

TOKENS = st.lists(st.integers(0, 3), max_size=30)


def test_it_is_the_share_of_n_grams_that_came_before():
    # abc bca cab abc bca: two of five have been there.
    assert repetition([1, 2, 3, 1, 2, 3, 1]) == pytest.approx(2 / 5)
    assert repetition("the cat and the cat and the") == pytest.approx(2 / 5)
    assert repetition([1, 1, 2, 1, 1], n=2) == pytest.approx(1 / 4)
    assert repetition("all of these words come once") == 0
    assert repetition([7] * 102) == pytest.approx(0.99)


@pytest.mark.parametrize("short", ["", "two words", [], [1, 1]])
def test_what_is_too_short_repeats_nothing(short):
    assert repetition(short) == 0


@given(TOKENS, st.integers(1, 4))
def test_it_is_a_share_and_knows_no_names(tokens, n):
    share = repetition(tokens, n)
    assert 0 <= share < 1
    assert repetition([f"<{t}>" for t in tokens], n) == share
    counted = [
        tuple(tokens[i : i + n]) in {tuple(tokens[j : j + n]) for j in range(i)}
        for i in range(len(tokens) - n + 1)
    ]
    assert share == pytest.approx(sum(counted) / max(1, len(counted)))


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_n_grams_of_no_length_are_refused(n):
    with pytest.raises(InputError, match=r"of the n-grams, is .*: it must be a whole number"):
        repetition([1, 2, 3], n)
