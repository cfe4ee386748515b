import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import D_MODEL, SITE, tiny_tokenizer

from saepd.branches.writing.compare import compare
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.strip import Piece
from saepd.branches.writing.trace import Generated, Step
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector

TOKENIZER = tiny_tokenizer(opens=False, merges=[("Ġ", "s")])


def generated(text, tokens, values):
    steps = [
        Step(t, said, 1.0, t, None, 0.0, (v,), ())
        for t, said, v in zip(*tokens, values, strict=True)
    ]
    return Generated(text, tuple(tokens[0]), "length", tuple(steps))


def tokens_of(text):
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    return ids, [TOKENIZER.decode([i]) for i in ids]


def strip(written):
    return written.pieces(lambda step: step.kl[0])


def test_each_token_is_a_piece_with_its_number():
    written = generated("a sb", tokens_of("a sb"), [0.1, 0.2, 0.3])
    assert strip(written) == [Piece("a", 0.1), Piece(" s", 0.2), Piece("b", 0.3)]


def test_tokens_of_one_character_are_one_piece_with_the_largest_number():
    # Four bytes make the character, each a token of its own.
    written = generated("a🙂b", tokens_of("a🙂b"), [0.1, 0.2, 0.9, 0.3, 0.4, 0.5])
    assert strip(written) == [Piece("a", 0.1), Piece("🙂", 0.9), Piece("b", 0.5)]


def test_a_blank_of_the_prompt_and_a_stop_text_are_not_shown():
    written = generated("sx", tokens_of(" sx."), [0.1, 0.2, 0.3])
    assert strip(written) == [Piece("s", 0.1), Piece("x", 0.2)]
    assert strip(generated("", tokens_of("ab"), [1.0, 2.0])) == []


def test_blanks_that_tokens_leave_out_alone_stay_in_the_text():
    written = generated("two words", ([1, 2], ["two", "words"]), [0.1, 0.2])
    assert strip(written) == [Piece("two", 0.1), Piece(" words", 0.2)]


@given(st.text(max_size=12), st.integers(0, 5))
def test_the_pieces_are_the_text_whatever_it_is(text, cut):
    text = text.encode("utf-8", "ignore").decode()
    tokens = tokens_of(text)
    values = [float(i) for i in range(len(tokens[0]))]
    shown = text[: max(0, len(text) - cut)]
    pieces = strip(generated(shown, tokens, values))
    assert "".join(piece.text for piece in pieces) == shown
    assert all(piece.text for piece in pieces)
    assert all(piece.value in [0.0, *values] for piece in pieces)


@pytest.mark.parametrize("prompt", ["So?", "Is it "])
def test_the_pieces_of_what_a_model_writes_are_its_text(llama, prompt):
    vector = [1.0] * D_MODEL
    [found] = compare(
        llama,
        [prompt],
        Direction("d", SITE, AddVector(vector)),
        SamplingConfig(max_new_tokens=20, temperature=1.5),
    )
    for written in (found.base, found.steered):
        assert "".join(piece.text for piece in strip(written)) == written.text
