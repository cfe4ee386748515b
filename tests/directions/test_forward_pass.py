from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_tokenizer

from saepd.common.errors import InputError
from saepd.directions.forward_pass import Generation, read_pass

TOKENIZER = tiny_tokenizer()
PAD = TOKENIZER.pad_token_id
ROWS = torch.tensor([TOKENIZER("abcd").input_ids, TOKENIZER("wxyz").input_ids])


def cache_of(n, **more):
    return SimpleNamespace(get_seq_length=lambda: n, **more)


def read(tokens, running=None, **given):
    return read_pass({"input_ids": tokens, **given}, running, TOKENIZER)


def test_what_is_given_at_once_is_the_prompt():
    seen = read(ROWS)
    assert (seen.past, seen.boundary, seen.is_chunk) == (0, ROWS.shape[1], False)
    last = torch.zeros_like(ROWS, dtype=torch.bool)
    last[:, -1] = True
    assert torch.equal(seen.mask("answer", TOKENIZER), last)
    assert not seen.mask("generated", TOKENIZER).any()
    # The first token, which the tokenizer puts in front, is none of the text's.
    assert seen.mask("all", TOKENIZER).tolist() == [[False] + [True] * 4] * 2


def test_one_token_behind_a_cache_is_generated():
    seen = read(ROWS[:, 1:2], past_key_values=cache_of(7))
    assert (seen.past, seen.boundary, seen.is_chunk) == (7, 0, False)
    for spec in ("answer", "generated"):
        assert seen.mask(spec, TOKENIZER).all()
    assert not seen.mask("prompt", TOKENIZER).any()


def test_several_tokens_behind_a_cache_may_be_either():
    seen = read(ROWS[:, 1:3], past_key_values=cache_of(7))
    assert seen.is_chunk
    assert seen.mask("all", TOKENIZER).all()
    with pytest.raises(InputError, match="2 tokens behind a cache may be prompt or answer"):
        seen.mask("answer", TOKENIZER)


def test_padding_behind_the_rows_of_a_batch_is_seen_without_a_mask():
    padded = torch.cat([ROWS, torch.full((2, 2), PAD)], 1)
    padded[0, -2:] = ROWS[0, -2:]
    seen = read(padded)
    assert seen.real.tolist() == [[True] * 7, [True] * 5 + [False] * 2]
    assert seen.mask("answer", TOKENIZER).nonzero().tolist() == [[0, 6], [1, 4]]


def test_a_generation_knows_its_prompt_in_chunks_and_copies():
    running = Generation(prompt=ROWS)
    first = read(ROWS[:, :3], running, past_key_values=cache_of(0))
    assert (first.boundary, running.end) == (3, 3)
    assert not first.mask("answer", TOKENIZER).any()
    rest = read(ROWS[:, 3:], running, past_key_values=cache_of(3))
    assert rest.mask("answer", TOKENIZER).tolist() == [[False, True]] * 2
    copies = read(ROWS[:, 1:2].repeat_interleave(3, 0), running, past_key_values=cache_of(5))
    assert (copies.boundary, running.end) == (0, 6)
    assert torch.equal(copies.prompt, ROWS.repeat_interleave(3, 0))
    assert copies.mask("generated", TOKENIZER).all()
    with pytest.raises(InputError, match="cannot tell the 3 texts of this step from its 2 prompts"):
        read(ROWS[:1, 1:2].expand(3, 1), running, past_key_values=cache_of(6))


def test_a_generation_that_begins_with_a_cache_has_lost_its_prompt():
    with pytest.raises(InputError, match="steering needs the whole prompt"):
        read(ROWS[:, -1:], Generation(), past_key_values=cache_of(4))


@pytest.mark.parametrize(
    ("tokens", "given", "said"),
    [
        (None, {}, "called with embeddings"),
        (ROWS, {"attention_mask": torch.ones(2, 1, 5, 5)}, "an attention mask of 0 and 1"),
        (ROWS, {"past_key_values": cache_of(0, is_compileable=True)}, "static cache"),
    ],
)
def test_what_a_pass_cannot_be_told_from_is_refused(tokens, given, said):
    with pytest.raises(InputError, match=said):
        read(tokens, **given)
