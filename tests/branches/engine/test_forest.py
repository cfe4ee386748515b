import torch
from hypothesis import given
from hypothesis import strategies as st

from saepd.branches.engine.columns import NEVER, Columns
from saepd.branches.engine.forest import Copy, Forest
from saepd.branches.engine.texts import text_tree
from saepd.branches.engine.turns import copies_for_least_work

TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=4)
N_PROMPT = 5


def laid_out(lengths, trees):
    """Prompts of some lengths, whose tokens are 10, 11, ..., with their texts behind them."""
    n = N_PROMPT + max(len(tree.tokens) for tree in trees)
    tokens = torch.zeros(len(trees), n, dtype=torch.long)
    real = torch.zeros(len(trees), n, dtype=torch.bool)
    until = torch.full((len(trees), n), NEVER)
    for row, (length, tree) in enumerate(zip(lengths, trees, strict=True)):
        tokens[row, N_PROMPT - length : N_PROMPT] = torch.arange(10, 10 + length)
        real[row, N_PROMPT - length : N_PROMPT] = True
        behind = slice(N_PROMPT, N_PROMPT + len(tree.tokens))
        tokens[row, behind] = torch.tensor(tree.tokens, dtype=torch.long)
        real[row, behind] = True
        until[row, behind] = N_PROMPT + torch.tensor(tree.until, dtype=torch.long)
    return Columns(tokens, real, until, N_PROMPT)


@given(
    texts=st.lists(TEXTS, min_size=2, max_size=2),
    lengths=st.lists(st.integers(1, N_PROMPT), min_size=2, max_size=2),
    first=st.integers(1, N_PROMPT - 1),
    data=st.data(),
)
def test_every_copy_reads_its_own_texts_behind_the_prompt_and_nothing_else(
    texts, lengths, first, data
):
    trees = [text_tree(own) for own in texts]
    copies = [
        [Copy(0, chosen) for chosen in data.draw(st.lists(some, min_size=1, max_size=3))]
        for some in (
            st.lists(st.sampled_from(range(len(own))), min_size=1, unique=True) for own in texts
        )
    ]
    columns = laid_out(lengths, trees)
    forest = Forest.grow(columns, first, trees, texts, copies)
    assert torch.equal(forest.columns.tokens, columns.tokens.gather(1, forest.source))
    visible, n_slots = forest.columns.visible, forest.shape[1]
    for row, own in enumerate(copies):
        prompt = list(range(10, 10 + lengths[row]))
        for number, copy in enumerate(own):
            for slot, text in enumerate(copy.texts):
                chosen = forest.real[row] & (forest.text[row] == number * n_slots + slot)
                at, token = forest.at[row, chosen], forest.token[row, chosen]
                assert token.tolist() == texts[row][text]
                for i, column in enumerate(forest.read[row, at].tolist()):
                    seen = visible[row, column].nonzero()[:, 0]
                    assert (
                        forest.columns.tokens[row, seen].tolist() == prompt + texts[row][text][:i]
                    )
                    assert forest.columns.position_ids[row, column] == lengths[row] + i - 1
                    assert set(forest.copy[row, seen[seen >= first]].tolist()) <= {number}
        assert int(forest.real[row].sum()) == sum(
            len(texts[row][text]) for copy in own for text in copy.texts
        )


def test_a_column_is_read_once_however_many_texts_go_on_from_it():
    tree = text_tree([[1], [2], [1, 2, 3]])
    forest = Forest.grow(
        laid_out([2], [tree]), 4, [tree], [[[1], [2], [1, 2, 3]]], [[Copy(0, [0, 1, 2])]]
    )
    assert forest.read.tolist() == [[4, 5, 6]]
    assert forest.at.tolist() == [[0, 0, 0, 1, 2]]
    assert forest.text.tolist() == [[0, 1, 2, 2, 2]]


def test_long_texts_run_apart_and_short_ones_together():
    long, short = text_tree([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), text_tree([[1], [2], [3]])
    assert copies_for_least_work(1, [long, short], [1, 2]) == [
        [Copy(0, [0]), Copy(0, [1]), Copy(0, [2])],
        [Copy(0, [0]), Copy(0, [1]), Copy(0, [2]), Copy(1, [0]), Copy(1, [1]), Copy(1, [2])],
    ]
    assert copies_for_least_work(1, [short], [2]) == [[Copy(0, [0, 1, 2]), Copy(1, [0, 1, 2])]]
