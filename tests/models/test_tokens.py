from types import SimpleNamespace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, SITE, save_tiny_model, tiny_tokenizer
from tokenizers import processors

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.models.chat import chat
from saepd.models.load import load_model
from saepd.models.sites import read_site
from saepd.models.tokens import (
    PromptBatch,
    check_lengths,
    continuation_ids,
    pad_left,
    padding_id,
    prompt_ids,
)

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


class Characters:
    """A tokenizer of characters without an opening; what it replaces in a text is one token."""

    def __init__(self, *merged, start=""):
        self.merged, self.start = merged, start

    def __call__(self, text, add_special_tokens=True):
        for i, pair in enumerate(self.merged):
            text = text.replace(pair, chr(1000 + i))
        return SimpleNamespace(input_ids=[ord(c) for c in self.start + text])

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(map(chr, tokens))


# --- prompts ---


@every_architecture
def test_a_prompt_has_the_tokens_of_the_models_own_tokenizer(tiny_bridge, architecture):
    """A bridge's own tokenizer would put its beginning in front of every text."""
    model = tiny_bridge(architecture)
    own = transformers.AutoTokenizer.from_pretrained(model.tokenizer.name_or_path)
    for text in ("So?", "Is it so, and if not, why?", "<|start|>So?"):
        assert prompt_ids(model.tokenizer, text) == prompt_ids(own, text)
    assert prompt_ids(model.tokenizer, "So?") == own("So?").input_ids
    opens = own("So?").input_ids[0] == own.bos_token_id
    assert opens == (architecture in ("llama", "gemma2"))
    assert model.to_tokens("So?").tolist() == [own("So?").input_ids]
    assert model.cfg.default_prepend_bos == model.cfg.tokenizer_prepends_bos == opens


def test_a_prompt_that_begins_with_an_opening_gets_no_second_one(llama):
    rows = [prompt_ids(llama.tokenizer, text) for text in ("So?", "<|start|>So?")]
    assert rows[0] == rows[1]
    # Another special token opens a text as well, and so does the chat template.
    assert prompt_ids(llama.tokenizer, "<|end|>So?")[0] == llama.tokenizer.eos_token_id
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "User: {{ messages[0]['content'] }}\nAssistant:"
    assert tokenizer.decode(prompt_ids(tokenizer, chat(tokenizer, "So?"))) == chat(tokenizer, "So?")
    assert prompt_ids(tokenizer, "User, so?")[0] == tokenizer.bos_token_id


def test_an_end_that_the_tokenizer_adds_is_left_off():
    tokenizer = tiny_tokenizer()
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", start), ("<|end|>", end)]
    )
    assert tokenizer("So?").input_ids[-1] == end
    assert tokenizer.decode(prompt_ids(tokenizer, "So?")) == "<|start|>So?"
    added = continuation_ids(tokenizer, "So?", "Yes")
    assert tokenizer.decode(prompt_ids(tokenizer, "So?") + added) == "<|start|>So? Yes"


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


WORDS = [("Ġ", "Y"), ("Ċ", "Ċ"), ("Ġ", "A")]


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_at_the_end_belongs_to_what_follows(blank):
    """Split off as a token of its own it is something that the model has never seen there."""
    tokenizer = tiny_tokenizer(merges=WORDS)
    assert prompt_ids(tokenizer, f"So:{blank}") == tokenizer("So:").input_ids
    added = continuation_ids(tokenizer, f"So:{blank}", "Yes")
    assert tokenizer("So:").input_ids + added == tokenizer("So: Yes").input_ids
    assert tokenizer.decode(added[:1]) == " Y"


@pytest.mark.parametrize(
    ("blanks", "kept"), [("\n", "\n"), ("\n ", "\n"), ("\n\n", "\n"), (" \n", " \n"), ("  ", " ")]
)
def test_only_blanks_that_would_have_other_tokens_are_moved(blanks, kept):
    tokenizer = tiny_tokenizer(merges=WORDS)
    before = prompt_ids(tokenizer, f"So:{blanks}")
    assert tokenizer.decode(before) == f"<|start|>So:{kept}"
    added = continuation_ids(tokenizer, f"So:{blanks}", "Yes")
    assert before + added == tokenizer(f"So:{blanks}Yes").input_ids


def test_a_continuation_may_bring_its_own_blank(llama):
    tokenizer = llama.tokenizer
    expected = continuation_ids(tokenizer, "So?", "Yes")
    assert continuation_ids(tokenizer, "So?", " Yes") == expected


def test_nothing_joins_an_answer_to_a_special_token(llama):
    added = continuation_ids(llama.tokenizer, "<|start|>user<|end|>", "Yes")
    assert llama.tokenizer.decode(added) == "Yes"


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
def test_prompt_and_continuation_are_the_whole_text(prompt, continuation):
    tokenizer = tiny_tokenizer(opens=False, merges=WORDS)
    ids = prompt_ids(tokenizer, prompt) + continuation_ids(tokenizer, prompt, continuation)
    joint = "" if prompt[-1].isspace() or continuation[0].isspace() else " "
    assert ids == tokenizer(prompt + joint + continuation).input_ids


# --- batches ---


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=9), min_size=1, max_size=5))
def test_rows_end_together(rows):
    parameter = torch.zeros(1)
    model = SimpleNamespace(
        cfg=SimpleNamespace(d_vocab=259),
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


@pytest.mark.parametrize("pad", [None, 258, 300])
def test_any_id_of_the_embedding_will_do_as_padding(pad):
    model = SimpleNamespace(
        cfg=SimpleNamespace(d_vocab=258), tokenizer=SimpleNamespace(pad_token_id=pad)
    )
    assert padding_id(model) == 0


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


# --- tokens that the model does not know ---


def test_tokens_without_an_embedding_are_refused(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path), device="cpu")
    model.tokenizer.add_tokens(["Unheard"])
    message = r"the token 'Unheard' \(259\), but the model's embedding has 259 rows"
    for prompt, options in (("Unheard of?", ("Yes", "No")), ("Is it?", ("Yes", "Unheard"))):
        with pytest.raises(InputError, match=message):
            score_continuations(model, [prompt], [options], [])
    with pytest.raises(InputError, match=message):
        read_site(model, [SITE], [prompt_ids(model.tokenizer, "Unheard of?")], lambda _: [])


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
