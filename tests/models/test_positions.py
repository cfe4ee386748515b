import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saepd.common.errors import InputError
from saepd.models.position_specs import Positions, parse_positions
from saepd.models.positions import generated_mask, prompt_mask

BYTES = tiny_tokenizer()
PAD, START, END = BYTES.pad_token_id, BYTES.bos_token_id, BYTES.eos_token_id
TEXT = "<|start|>ab<|end|>cd"
# One character for each of the six tokens of TEXT.
BY_HAND = {
    "every": "111111",
    "all": "011011",
    "prompt": "011011",
    "generated": "000000",
    "answer": "000001",
    "last(1)": "000001",
    "last(2)": "000011",
    "last(5)": "011111",
    "last(99)": "111111",
    'after("a")': "001111",
    "after('b')": "000111",
    'after("<|start|>")': "011111",
    'after("c")': "000001",
    'after("cd")': "000000",
}


def ids(text, tokenizer=BYTES):
    return tokenizer(text, add_special_tokens=False).input_ids


def mask_of(spec, rows, tokenizer=BYTES, left=0, right=0, pad=PAD):
    """The masks of token rows of any lengths, padded to one width with extra pads on both sides."""
    width = max(map(len, rows))
    tokens = [[pad] * (left + width - len(r)) + r + [pad] * right for r in rows]
    real = [[0] * (left + width - len(r)) + [1] * len(r) + [0] * right for r in rows]
    return prompt_mask(spec, torch.tensor(tokens), torch.tensor(real), tokenizer)


def bits(mask):
    return "".join(str(int(bit)) for bit in mask.tolist())


@pytest.mark.parametrize(("spec", "expected"), BY_HAND.items())
def test_prompt_mask_is_the_one_made_by_hand(spec, expected):
    assert ids(TEXT)[0] == START
    mask = mask_of(spec, [ids(TEXT)])
    assert mask.dtype == torch.bool
    assert bits(mask[0]) == expected


@pytest.mark.parametrize(("spec", "expected"), BY_HAND.items())
@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 2), (1, 4)])
def test_padding_changes_nothing_and_is_never_selected(spec, expected, left, right):
    (mask,) = mask_of(spec, [ids(TEXT)], left=left, right=right)
    assert bits(mask) == "0" * left + expected + "0" * right


@pytest.mark.parametrize("spec", [s for s in BY_HAND if "after" not in s] + ['after("c")'])
def test_rows_of_a_batch_do_not_know_of_each_other(spec):
    rows = [ids(TEXT), ids("c"), ids("abcd")]
    batch = mask_of(spec, rows)
    for row, mask in zip(rows, batch, strict=True):
        assert bits(mask) == "0" * (6 - len(row)) + bits(mask_of(spec, [row])[0])


@pytest.mark.parametrize("spec", ["all", "prompt"])
def test_first_token_is_left_out_even_where_it_is_no_special_one(spec):
    assert bits(mask_of(spec, [ids("abcd")], left=2)[0]) == "000111"


@pytest.mark.parametrize("spec", ["all", "prompt"])
def test_only_the_first_token_is_left_out_after_an_opening_special_one(spec):
    # The opening token is the sink; the first word after it is an ordinary token.
    assert bits(mask_of(spec, [[START, *ids("ab")]])[0]) == "011"


def test_padding_is_told_by_the_attention_and_not_by_the_token():
    # Many models pad with the end token, which may also be a real one.
    row = [*ids("ab"), END]
    assert bits(mask_of("answer", [row], left=2, pad=END)[0]) == "00001"
    assert bits(mask_of("last(3)", [row], left=2, right=1, pad=END)[0]) == "001110"
    assert bits(mask_of("all", [row], left=2, pad=END)[0]) == "00010"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("every", "1111"),
        ("all", "1101"),
        ("prompt", "0000"),
        ("generated", "1111"),
        ("answer", "1111"),
        ("last(2)", "0000"),
        ('after("x")', "1111"),
    ],
)
def test_generated_mask_is_the_one_made_by_hand(spec, expected):
    tokens = torch.tensor([[*ids("ab"), END, *ids("c")], ids("abcd")])
    mask = generated_mask(spec, tokens, BYTES)
    assert mask.dtype == torch.bool
    assert bits(mask[0]) == expected
    assert bits(mask[1]) == ("1111" if "1" in expected else "0000")


# --- markers ---


def test_the_last_occurrence_of_a_marker_counts():
    assert bits(mask_of('after("Q:")', [ids("Q: a Q: b")])[0]) == "000000011"


@pytest.mark.parametrize("text", ["aébc", "a€bc", "a😀bc"])
@pytest.mark.parametrize("marker", ["{}", "a{}"])
def test_a_marker_that_ends_with_a_character_of_several_tokens(text, marker):
    marker = marker.format(text[1])
    mask = mask_of(f'after("{marker}")', [ids(text)], left=1)[0]
    assert bits(mask) == "0" * (len(ids(text)) - 1) + "11"


def test_a_marker_after_characters_of_several_tokens():
    assert bits(mask_of('after("b")', [ids("é😀bcé")])[0]) == "0" * 7 + "111"


def test_a_token_that_reaches_over_the_end_of_the_marker_is_left_out():
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab["bc"] = len(vocab)
    merged = Tokenizer(models.BPE(vocab=vocab, merges=[("b", "c")]))
    merged.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merged.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merged, pad_token="<|pad|>")
    row = ids("abcd", tokenizer)
    assert len(row) == 3
    assert bits(mask_of('after("ab")', [row], tokenizer)[0]) == "001"
    assert bits(mask_of('after("abc")', [row], tokenizer)[0]) == "001"
    assert bits(mask_of('after("a")', [row], tokenizer)[0]) == "011"


def test_a_missing_marker_is_refused_with_the_end_of_the_prompt():
    with pytest.raises(InputError, match=r"marker 'xyz' does not occur in the prompt 'abcd'"):
        mask_of('after("xyz")', [ids("xyz"), ids("abcd")])


def test_a_marker_is_not_found_in_padding():
    with pytest.raises(InputError, match="does not occur"):
        mask_of('after("<|pad|>")', [ids("abcd")], left=3, right=3)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), text=st.text(alphabet="ab é€😀\n", min_size=1, max_size=12))
def test_after_starts_at_the_byte_after_the_marker(data, text):
    first = data.draw(st.integers(0, len(text) - 1))
    last = data.draw(st.integers(first + 1, len(text)))
    marker = text[first:last]
    end = len(text[: text.rindex(marker) + len(marker)].encode())
    mask = mask_of(f'after("{marker}")', [ids(text)])[0]
    assert bits(mask) == "0" * end + "1" * (len(text.encode()) - end)


# --- parsing ---


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", Positions("all")),
        ("last(12)", Positions("last", count=12)),
        ('after("Answer: (a)")', Positions("after", marker="Answer: (a)")),
        ("""after('say "x"')""", Positions("after", marker='say "x"')),
        ('after("two\nlines")', Positions("after", marker="two\nlines")),
    ],
)
def test_parsed_specs(spec, expected):
    assert parse_positions(spec) == expected


@pytest.mark.parametrize(
    "spec",
    ["", "All", "everything", "last", "last()", "last(0)", "last(-1)", "last(1.5)", "last(2) "],
)
def test_unknown_specs_are_refused(spec):
    refused(spec)


def test_more_tokens_than_any_text_has_are_refused():
    refused("last(10000000000)")


@pytest.mark.parametrize("spec", [None, 5, ["answer"]])
def test_positions_that_are_no_text_are_refused(spec):
    with pytest.raises(InputError, match="they must be text, such as 'answer'"):
        parse_positions(spec)


@pytest.mark.parametrize(
    "spec",
    ["after", "after()", 'after("")', "after(x)", "after(\"x')", 'after("x', 'xafter("x")'],
)
def test_markers_that_are_none_are_refused(spec):
    refused(spec)


def refused(spec):
    with pytest.raises(InputError, match=r"unknown positions .* last\(n\) with n > 0"):
        parse_positions(spec)
    with pytest.raises(InputError, match="unknown positions"):
        mask_of(spec, [ids("ab")])
    with pytest.raises(InputError, match="unknown positions"):
        generated_mask(spec, torch.tensor([ids("ab")]), BYTES)
