import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from saepd.common.errors import InputError
from saepd.features.index.config import IndexConfig
from saepd.features.index.passages import NO_WORD, cut_passages, token_spans
from saepd.models.tokens import prompt_ids

MERGES = [("Ġ", "b"), ("Ġb", "u"), ("Ġbu", "s"), ("t", "h"), ("th", "e")]


def told(passages, row):
    """Each token of a passage: its piece, what has been read of its word, the word before."""
    tokens = range(*passages.starts[row : row + 2])

    def word(number):
        return None if number == NO_WORD else passages.vocabulary[number]

    return [
        (passages.texts[passages.pieces[t]], word(passages.words[t]), word(passages.before[t]))
        for t in tokens
    ]


@pytest.mark.parametrize("opens", [True, False])
def test_words_grow_with_the_tokens_that_are_read(opens):
    tokenizer = tiny_tokenizer(opens=opens, merges=MERGES)
    passages = cut_passages(tokenizer, ["the bus, 12"], IndexConfig())
    found = told(passages, 0)
    if opens:
        assert found.pop(0) == ("", None, None)
    assert found == [
        ("the", "the", None),
        (" bus", "bus", "the"),
        (",", ",", "bus"),
        (" ", None, "bus"),
        ("1", "0…", "bus"),
        ("2", "00", "bus"),
    ]
    closes = passages.closes[opens:].tolist()
    assert closes == [True, True, False, False, False, True]


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=60).filter(lambda t: t.strip()), st.booleans())
def test_pieces_put_together_are_the_text(text, opens):
    tokenizer = tiny_tokenizer(opens=opens, merges=MERGES)
    ids = prompt_ids(tokenizer, text)
    spans = token_spans(tokenizer, text, ids)
    # Blanks at the end may be left to what follows: they are of no token.
    assert text.startswith("".join(text[a:b] for a, b in spans))
    assert len(spans) == len(ids)


def test_no_more_tokens_are_read_than_asked_for():
    tokenizer = tiny_tokenizer()
    texts = [f"text {i} of some" for i in range(20)]
    passages = cut_passages(tokenizer, texts, IndexConfig(max_tokens=70))
    assert 50 < passages.n_tokens <= 70
    assert passages.digest != cut_passages(tokenizer, texts, IndexConfig(max_tokens=90)).digest
    assert max(map(len, cut_passages(tokenizer, texts, IndexConfig(context_size=5)).rows)) == 5


def test_texts_of_nothing_are_refused():
    with pytest.raises(InputError, match="hold no passage"):
        cut_passages(tiny_tokenizer(), ["", "  \n"], IndexConfig())
