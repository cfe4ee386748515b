from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, tiny_tokenizer

from saepd.common.errors import InputError
from saepd.models.prompts import (
    PromptBatch,
    chat,
    check_lengths,
    continuation_ids,
    item_prompt,
    letters,
    pad_left,
    prompt_ids,
)
from saepd.models.wording import ReadoutConfig

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


class Characters:
    """A tokenizer of characters without an opening; what it replaces in a text is one token."""

    bos_token = None

    def __init__(self, *merged, start=""):
        self.merged, self.start = merged, start

    def __call__(self, text, add_special_tokens=True):
        for i, pair in enumerate(self.merged):
            text = text.replace(pair, chr(1000 + i))
        return SimpleNamespace(input_ids=[ord(c) for c in self.start + text])


# --- prompts ---


@every_architecture
def test_a_prompt_has_one_opening_token(tiny_bridge, architecture):
    tokenizer = tiny_bridge(architecture).tokenizer
    rows = [prompt_ids(tokenizer, text) for text in ("So?", f"{tokenizer.bos_token}So?")]
    assert rows[0] == rows[1]
    assert rows[0][0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in rows[0][1:]
    assert tokenizer.decode(rows[0][1:]) == "So?"


def test_an_opening_further_inside_is_part_of_the_text(llama):
    tokenizer = llama.tokenizer
    row = prompt_ids(tokenizer, f"So?{tokenizer.bos_token}")
    assert [i for i, token in enumerate(row) if token == tokenizer.bos_token_id] == [0, 4]


def test_a_tokenizer_without_an_opening_adds_none():
    assert prompt_ids(Characters(), "So?") == [ord(c) for c in "So?"]


@pytest.mark.parametrize("prompt", ["", " ", "\n\t "])
def test_empty_prompts_are_refused(llama, prompt):
    with pytest.raises(InputError, match="a prompt is empty"):
        prompt_ids(llama.tokenizer, prompt)


# --- continuations ---


@pytest.mark.parametrize(
    ("prompt", "joint"), [("So?", " "), ("So? ", ""), ("So?\n", ""), ("So?\N{NO-BREAK SPACE}", "")]
)
def test_a_space_joins_unless_there_is_one(llama, prompt, joint):
    tokenizer = llama.tokenizer
    added = continuation_ids(tokenizer, prompt, "Yes")
    assert added == tokenizer(f"{joint}Yes", add_special_tokens=False).input_ids
    assert prompt_ids(tokenizer, prompt) + added == prompt_ids(tokenizer, f"{prompt}{joint}Yes")


def test_a_chat_prompt_is_continued_without_a_second_opening(llama):
    tokenizer = llama.tokenizer
    prompt = chat(tokenizer, "So?")
    assert prompt.startswith(tokenizer.bos_token)
    added = continuation_ids(tokenizer, prompt, "Yes")
    assert added == tokenizer("Yes", add_special_tokens=False).input_ids


def test_prompt_and_continuation_are_read_together():
    # As SentencePiece does, this one marks where a text starts: an option does not start one.
    tokenizer = Characters(start="_")
    assert continuation_ids(tokenizer, "So?\n", "Yes") == [ord(c) for c in "Yes"]
    assert continuation_ids(Characters(" Y"), "So?", "Yes") == [1000, ord("e"), ord("s")]


def test_a_continuation_that_changes_the_prompts_tokens_is_read_alone():
    tokenizer = Characters("? Y")
    assert tokenizer("So? Yes").input_ids[:3] != tokenizer("So?").input_ids
    assert continuation_ids(tokenizer, "So?", "Yes") == [ord(c) for c in " Yes"]


def test_a_continuation_of_nothing_is_refused(llama):
    with pytest.raises(InputError, match="the option '' adds no token to the prompt"):
        continuation_ids(llama.tokenizer, "So? ", "")


@settings(max_examples=60)
@given(
    prompt=st.text("ab ?é\n", min_size=1).filter(str.strip),
    continuation=st.text("ab é", min_size=1).filter(str.strip),
)
def test_a_continuation_is_what_the_whole_text_has_more(prompt, continuation):
    tokenizer = tiny_tokenizer()
    added = continuation_ids(tokenizer, prompt, continuation)
    joint = "" if prompt[-1].isspace() else " "
    assert tokenizer.decode(prompt_ids(tokenizer, prompt) + added) == prompt + joint + continuation


# --- batches ---


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=9), min_size=1, max_size=5))
def test_rows_end_together(rows):
    parameter = torch.zeros(1)
    model = SimpleNamespace(
        tokenizer=SimpleNamespace(pad_token_id=258),
        original_model=SimpleNamespace(parameters=lambda: iter([parameter])),
    )
    batch = pad_left(model, rows)
    assert batch.tokens.shape == batch.attention.shape == (len(rows), max(map(len, rows)))
    for row, tokens, attention, positions in zip(
        rows, batch.tokens, batch.attention, batch.position_ids, strict=True
    ):
        n_padding = len(tokens) - len(row)
        assert tokens.tolist() == [258] * n_padding + row
        assert attention.tolist() == [0] * n_padding + [1] * len(row)
        assert positions.tolist() == [0] * n_padding + list(range(len(row)))


def test_padding_is_told_by_its_place_not_its_token():
    pad = 258
    tokens = torch.tensor([[pad, pad, 1, pad, 2]])
    batch = PromptBatch(tokens, torch.tensor([[0, 1, 1, 1, 1]]))
    assert batch.position_ids.tolist() == [[0, 0, 1, 2, 3]]


@every_architecture
def test_padded_rows_are_read_like_lone_ones(tiny_bridge, architecture):
    model = tiny_bridge(architecture)
    rows = [prompt_ids(model.tokenizer, text) for text in ("So?", "A rather longer one", "b")]
    batch = pad_left(model, rows)
    with torch.no_grad():
        together = model.original_model(
            input_ids=batch.tokens,
            attention_mask=batch.attention,
            position_ids=batch.position_ids,
        ).logits[:, -1]
        for row, logits in zip(rows, together, strict=True):
            torch.testing.assert_close(
                logits, model(torch.tensor([row]))[0, -1], atol=1e-4, rtol=1e-4
            )


# --- lengths ---


@pytest.mark.parametrize(
    ("lengths", "room", "fault"),
    [
        ([256], 0, None),
        ([250], 6, None),
        ([250, 3], [6, 253], None),
        ([257], 0, "prompt 0 has 257 tokens, but the model's context holds 256: shorten it"),
        ([2, 250], 7, "prompt 1 has 250 tokens and needs 7 more, but the model's context holds"),
        ([250, 3], [6, 254], "prompt 1 has 3 tokens and needs 254 more"),
    ],
)
def test_prompts_must_leave_room(llama, lengths, room, fault):
    rows = [[1] * n for n in lengths]
    if fault is None:
        check_lengths(llama, rows, room)
        return
    with pytest.raises(InputError, match=fault):
        check_lengths(llama, rows, room)


# --- templates ---


def test_chat_ends_where_the_model_begins():
    tokenizer = tiny_tokenizer()
    assert chat(tokenizer, "So?") == "<|start|>user\nSo?<|end|>\n<|start|>assistant\n"
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="this model has no chat template: use the plain style"):
        chat(tokenizer, "So?")


def test_letters_go_from_a_to_z():
    assert letters(3) == ["A", "B", "C"]
    assert "".join(letters(26)) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    with pytest.raises(InputError, match="27 options have no letters"):
        letters(27)


def test_how_each_readout_asks(llama):
    options = ("Yes", "No")
    asked = {
        (readout, style): item_prompt(llama, "So?", options, ReadoutConfig(readout, style))
        for readout in ("text", "letter")
        for style in ("plain", "chat")
    }
    assert asked["text", "plain"] == "A survey asked: So?\nMost people answered:"
    assert asked["letter", "plain"] == "Question: So?\nA. Yes\nB. No\nAnswer:"
    for (readout, style), prompt in asked.items():
        assert "So?" in prompt
        assert prompt.endswith("<|start|>assistant\n") == (style == "chat")
        assert ("Yes" in prompt) == (readout == "letter")
    assert "So?\nA. Yes\nB. No\n" in asked["letter", "chat"]
