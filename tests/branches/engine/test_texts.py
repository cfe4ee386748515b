from hypothesis import given
from hypothesis import strategies as st

from saepd.branches.engine.texts import text_tree

TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=7)


@given(TEXTS)
def test_every_text_is_read_behind_its_own_tokens_and_no_token_is_there_twice(texts):
    tree = text_tree(texts)
    assert len(tree.tokens) == len({tuple(text[:n]) for text in texts for n in range(1, len(text))})
    for text, reads in zip(texts, tree.reads, strict=True):
        assert [tree.tokens[i - 1] for i in reads[1:]] == text[:-1]
        assert reads[0] == 0 and len(reads) == len(text)
        if reads[-1]:
            last = reads[-1] - 1
            seen = [j + 1 for j in range(last + 1) if tree.until[j] > last]
            assert seen == reads[1:]


def test_options_that_begin_alike_share_their_start():
    tree = text_tree([[7, 8, 1], [9, 1], [7, 8, 2, 3], [7, 8, 2]])
    assert tree.tokens == [7, 8, 2, 9]
    assert tree.until == [3, 3, 3, 4]
    assert tree.reads == [[0, 1, 2], [0, 4], [0, 1, 2, 3], [0, 1, 2]]
