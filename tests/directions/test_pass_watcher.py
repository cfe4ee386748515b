"""Positions mean the same however generation is driven, told apart by full forwards by hand."""

from inspect import signature

import pytest
import torch
from tiny import D_MODEL, SITE
from transformers import DynamicCache, GenerationConfig

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector

SPECS = ("every", "all", "prompt", "generated", "answer", "last(2)", 'after("::")')
PROMPT = "Is it so? Say:: yes"
OTHER = "A longer one, to be beside it:: no"
N_NEW = 4
ARCHITECTURES = ("llama", "gemma2", "gpt2")

every_spec = pytest.mark.parametrize("positions", SPECS)


def direction(positions):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    return Direction("d", SITE, AddVector(2 * vector), positions)


def ids(model, text=PROMPT):
    return model.tokenizer(text, return_tensors="pt").input_ids


def logits_by_hand(model, tokens, n_prompt, edit, mask_by_hand):
    """A full forward of one unpadded text, the vector hooked in where the spec says."""
    selected = mask_by_hand(edit.positions, tokens, n_prompt, model.tokenizer)
    mask = torch.tensor(selected).float()[None, :, None]
    point = model.blocks[1].hook_out
    handle = point.register_forward_hook(lambda _m, _a, h: h + mask * edit.constant)
    try:
        with torch.inference_mode():
            return model.original_model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        handle.remove()


def greedy_by_hand(model, prompt, edit, mask_by_hand, n=N_NEW):
    tokens = list(prompt)
    for _ in range(n):
        logits = logits_by_hand(model, tokens, len(prompt), edit, mask_by_hand)
        tokens.append(int(logits[-1].argmax()))
    return tokens


def config(**settings):
    base = {"max_new_tokens": N_NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
    return GenerationConfig(**{**base, **settings})


def left_padded(model, texts):
    rows = [model.tokenizer(text).input_ids for text in texts]
    width, pad = max(map(len, rows)), model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return rows, tokens, mask


@every_spec
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_cache": False},
        {"prefill_chunk_size": 5},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=["cached", "uncached", "chunks", "assisted"],
)
def test_transformers_generate_steers_as_full_forwards_do(
    tiny_bridge, mask_by_hand, architecture, settings, positions
):
    model, edit = tiny_bridge(architecture), direction(positions)
    if architecture == "gemma2" and "prompt_lookup_num_tokens" in settings:
        pytest.skip("transformers crops no cache of windows")
    prompt = ids(model)
    expected = greedy_by_hand(model, prompt[0].tolist(), edit, mask_by_hand)
    with edit.apply(model):
        written = model.original_model.generate(prompt, generation_config=config(**settings))
    assert written[0].tolist() == expected


@every_spec
@pytest.mark.parametrize("settings", [{}, {"use_cache": False}, {"prefill_chunk_size": 7}])
@pytest.mark.parametrize("masked", [True, False])
def test_a_padded_batch_is_generated_as_each_alone(
    llama, mask_by_hand, positions, settings, masked
):
    edit = direction(positions)
    rows, tokens, mask = left_padded(llama, [PROMPT, OTHER])
    given = {"attention_mask": mask} if masked else {}
    with edit.apply(llama):
        written = llama.original_model.generate(
            tokens, generation_config=config(**settings), **given
        )
    for row, text in zip(rows, written, strict=True):
        expected = greedy_by_hand(llama, row, edit, mask_by_hand)
        assert text[-len(expected) :].tolist() == expected


@every_spec
@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "num_return_sequences": 2, "use_cache": False},
    ],
    ids=["beams", "samples", "uncached samples"],
)
def test_several_sequences_of_a_prompt_have_the_scores_of_full_forwards(
    llama, mask_by_hand, positions, settings
):
    edit = direction(positions)
    rows, tokens, mask = left_padded(llama, [PROMPT, OTHER])
    asked = config(**settings, output_logits=True, return_dict_in_generate=True)
    with edit.apply(llama):
        found = llama.original_model.generate(tokens, attention_mask=mask, generation_config=asked)
    n = settings["num_return_sequences"]
    for index, text in enumerate(found.sequences):
        row = rows[index // n]
        whole = row + text[tokens.shape[1] :].tolist()
        logits = logits_by_hand(llama, whole[:-1], len(row), edit, mask_by_hand)[len(row) - 1 :]
        for step, right in enumerate(logits):
            if "num_beams" in settings:
                # Beams change places; the row that this one came from is among its prompt's.
                beam = found.beam_indices[index][step]
                assert torch.allclose(found.logits[step][beam], right, atol=1e-3)
            else:
                assert torch.allclose(found.logits[step][index], right, atol=1e-3)


@every_spec
def test_a_prompt_goes_on_from_a_cache_that_holds_its_start(llama, mask_by_hand, positions):
    edit, prompt = direction(positions), ids(llama)
    expected = greedy_by_hand(llama, prompt[0].tolist(), edit, mask_by_hand)
    cache = DynamicCache(config=llama.original_model.config)
    # What the spec edits of the start must have been edited already.
    begun = direction({"every": "every", "all": "all", "prompt": "all"}.get(positions, "generated"))
    with begun.apply(llama), torch.no_grad():
        llama.original_model(prompt[:, :6], past_key_values=cache)
    with edit.apply(llama):
        written = llama.original_model.generate(
            prompt, past_key_values=cache, generation_config=config()
        )
    assert written[0].tolist() == expected


@every_spec
def test_an_assistant_proposes_what_the_steered_model_judges(
    llama, tiny_bridge, mask_by_hand, positions
):
    edit, prompt = direction(positions), ids(llama)
    expected = greedy_by_hand(llama, prompt[0].tolist(), edit, mask_by_hand)
    assistant = tiny_bridge("qwen2").original_model
    with edit.apply(llama):
        written = llama.original_model.generate(
            prompt, assistant_model=assistant, generation_config=config()
        )
    assert written[0].tolist() == expected


@every_spec
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_loop_of_ones_own_feeds_one_token_at_a_time(
    tiny_bridge, mask_by_hand, architecture, positions
):
    model, edit = tiny_bridge(architecture), direction(positions)
    prompt = ids(model)
    expected = greedy_by_hand(model, prompt[0].tolist(), edit, mask_by_hand)
    tokens, cache, written = prompt, None, prompt[0].tolist()
    with edit.apply(model), torch.inference_mode():
        for _ in range(N_NEW):
            output = model.original_model(tokens, past_key_values=cache, use_cache=True)
            cache, tokens = output.past_key_values, output.logits[:, -1:].argmax(-1)
            written.append(int(tokens))
    assert written == expected


def in_chunks(model, tokens, mask=None, sizes=(4, 9)):
    cache, parts, start = None, [], 0
    with torch.inference_mode():
        for end in (*sizes, tokens.shape[1]):
            output = model.original_model(
                tokens[:, start:end],
                attention_mask=None if mask is None else mask[:, :end],
                past_key_values=cache,
                use_cache=True,
            )
            cache, start = output.past_key_values, end
            parts.append(output.logits)
    return torch.cat(parts, 1)


def test_chunks_of_ones_own_are_right_at_all_positions_and_refused_elsewhere(llama, mask_by_hand):
    edit, prompt = direction("all"), ids(llama)
    right = logits_by_hand(llama, prompt[0].tolist(), prompt.shape[1], edit, mask_by_hand)
    with edit.apply(llama):
        assert torch.allclose(in_chunks(llama, prompt)[0], right, atol=1e-4)
    for positions in ("prompt", "generated", "answer", "last(2)"):
        with (
            direction(positions).apply(llama),
            pytest.raises(InputError, match="may be prompt or answer"),
        ):
            in_chunks(llama, prompt)


def test_a_row_that_starts_in_a_later_chunk_keeps_its_first_token(llama, mask_by_hand):
    edit = direction("all")
    rows, tokens, mask = left_padded(llama, ["so", OTHER])
    assert tokens.shape[1] - len(rows[0]) > 9
    with edit.apply(llama):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            right = llama.original_model(tokens, attention_mask=mask, position_ids=positions).logits
        # By hand, alone.
        alone = logits_by_hand
    by_hand = alone(llama, rows[0], len(rows[0]), edit, mask_by_hand)
    assert torch.allclose(right[0, -len(rows[0]) :], by_hand, atol=1e-4)
    cache, start, parts = None, 0, []
    with edit.apply(llama), torch.inference_mode():
        for end in (4, 9, tokens.shape[1]):
            output = llama.original_model(
                tokens[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                past_key_values=cache,
                use_cache=True,
            )
            cache, start = output.past_key_values, end
            parts.append(output.logits)
    assert torch.allclose(torch.cat(parts, 1)[0, -len(rows[0]) :], by_hand, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"dola_layers": "low"}, "dola_layers"),
        ({"cache_implementation": "static", "disable_compile": True}, "static cache"),
    ],
)
def test_generation_that_would_go_wrong_is_refused(llama, settings, match):
    with direction("answer").apply(llama), pytest.raises(InputError, match=match):
        llama.original_model.generate(ids(llama), **settings)


def test_embeddings_continuous_batches_and_masks_of_scores_are_refused(llama):
    hf_model, prompt = llama.original_model, ids(llama)
    with direction("answer").apply(llama):
        with pytest.raises(InputError, match="needs token ids"):
            hf_model.generate(inputs_embeds=torch.zeros(1, 3, D_MODEL), max_new_tokens=1)
        with pytest.raises(InputError, match="continuous batching"):
            hf_model.generate_batch([prompt[0].tolist()])
        scores = torch.zeros(1, 1, prompt.shape[1], prompt.shape[1])
        with pytest.raises(InputError, match="attention mask of 0 and 1"):
            hf_model(prompt, attention_mask=scores)
    assert "generate" not in vars(hf_model)
    assert "generate_batch" not in vars(hf_model)


def test_between_pieces_of_a_stream_a_forward_sees_a_prompt(llama, mask_by_hand):
    edit, prompt = direction("answer"), ids(llama)
    right = logits_by_hand(llama, prompt[0].tolist(), prompt.shape[1], edit, mask_by_hand)
    with edit.apply(llama):
        pieces = llama.generate_stream(
            prompt, max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False,
            max_tokens_per_yield=1,
        )  # fmt: skip
        next(pieces)
        with torch.inference_mode():
            between = llama.original_model(prompt).logits[0]
        list(pieces)
    assert torch.allclose(between, right, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mask_given_by_its_place_is_seen(tiny_bridge, architecture):
    model = tiny_bridge(architecture)
    rows = [model.tokenizer(text).input_ids for text in (PROMPT, OTHER)]
    n_padded = len(rows[1]) - len(rows[0])
    # Padded by a token that only the mask tells from text.
    tokens = torch.tensor([rows[0] + n_padded * rows[0][-1:], rows[1]])
    mask = torch.ones_like(tokens)
    mask[0, len(rows[0]) :] = 0
    arguments = list(signature(model.original_model.forward).parameters)
    before = [None] * (arguments.index("attention_mask") - 1)
    with torch.inference_mode(), direction("answer").apply(model):
        named = model.original_model(tokens, attention_mask=mask).logits
        placed = model.original_model(tokens, *before, mask).logits
        alone = model.original_model(torch.tensor(rows[:1])).logits[0, -1]
    assert torch.equal(named, placed)
    torch.testing.assert_close(placed[0, len(rows[0]) - 1], alone, atol=1e-4, rtol=1e-4)
