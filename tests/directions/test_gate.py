from dataclasses import replace

import numpy as np
import pytest
import torch
from gated import amount_by_hand, gates
from scipy.spatial.distance import cosine
from tiny import D_MODEL, SITE
from transformers import DynamicCache, GenerationConfig

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.gate import Gate, read_amounts
from saepd.models.load import load_model

PROMPTS = ["Is it so? Say:: yes", "A longer one, to be beside it:: no", "a::b"]
KINDS = ("residual", "latents", "limited", "above", "below", "cosine")
SPECS = ("all", "prompt", "generated", "answer", "last(2)", 'after("::")')
N_NEW = 4


def dense(gate, positions="answer", hook_name="blocks.2.hook_resid_post", seed=1):
    vector = 2 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction("d", hook_name, AddVector(vector), positions, gate=gate)


def opened(model, prompt, edit, mask_by_hand):
    amount = amount_by_hand(model, prompt, edit.gate, mask_by_hand)
    return replace(edit, gate=None, coefficient=amount * edit.coefficient)


def ids(model, text):
    return model.tokenizer(text, return_tensors="pt").input_ids


def left_padded(model, texts):
    rows = [model.tokenizer(text).input_ids for text in texts]
    width, pad = max(map(len, rows)), model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def config(**settings):
    base = {"max_new_tokens": N_NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
    return GenerationConfig(**{**base, **settings})


# --- what a gate reads, and what it says ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_amounts_are_those_of_each_prompt_alone(
    tiny_bridge, random_sae, mask_by_hand, architecture, kind
):
    model, gate = tiny_bridge(architecture), gates(random_sae)[kind]
    rows = [model.tokenizer(prompt).input_ids for prompt in PROMPTS]
    found = read_amounts(model, rows, [gate, replace(gate, bias=gate.bias + 1)])
    expected = [amount_by_hand(model, prompt, gate, mask_by_hand) for prompt in PROMPTS]
    np.testing.assert_allclose(found[gate].numpy(), expected, atol=1e-4)
    assert len(found) == 2
    assert read_amounts(model, rows, []) == {}


def test_a_cosine_is_of_the_scaled_reading_and_the_bias_comes_on_top():
    draw = torch.Generator().manual_seed(0)
    weights, mean, *readings = torch.randn(6, 5, generator=draw)
    scale = 0.5 + torch.rand(5, generator=draw)
    gate = Gate(SITE, weights, mean, scale, bias=0.4, cosine=True)
    expected = [1.4 - cosine((reading - mean) / scale, weights) for reading in readings]
    np.testing.assert_allclose(gate.amount(torch.stack(readings)), expected, atol=1e-6)
    # What is no different from the mean has no direction.
    assert gate.amount(mean[None]).tolist() == pytest.approx([0.4])
    # A score at the threshold is neither above nor below it.
    for rule in ("above", "below"):
        at = Gate(SITE, weights, mean, bias=0.25, rule=rule, threshold=0.25)
        assert at.amount(mean[None]).tolist() == [0.0]


def test_the_numbers_are_copied_and_complete(random_sae):
    weights = torch.ones(D_MODEL, dtype=torch.float64)
    gate = Gate(SITE, weights)
    weights[0] = 5.0
    assert gate.weights.dtype == torch.float32 and gate.weights.sum() == D_MODEL
    assert gate.mean.tolist() == [0.0] * D_MODEL and gate.scale.tolist() == [1.0] * D_MODEL
    assert repr(gate) == f"Gate(linear, reads the residual at {SITE})"
    some = gates(random_sae)
    assert "reads latents at" in repr(some["latents"])
    assert repr(some["cosine"]).startswith("Gate(above cosine 0.02, ")
    assert "gate=Gate(linear" in repr(dense(gate))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"hook_name": "blocks.1.mlp.hook_pre"}, "must be a site of a block"),
        ({"hook_name": 3}, "must be a site of a block"),
        ({"weights": [1.0, float("nan")]}, "must be finite"),
        ({"mean": [1.0, 2.0]}, "32 weights but its mean has 2"),
        ({"scale": torch.zeros(D_MODEL)}, "scale must be positive"),
        ({"bias": float("inf")}, "a gate's bias is inf"),
        ({"threshold": "x"}, "a gate's threshold is 'x'"),
        ({"rule": "abov"}, "unknown rule of a gate 'abov': did you mean 'above'"),
        ({"cosine": 1}, "cosine is 1"),
        ({"limits": (0.0, 1.0), "rule": "above"}, "rule 'above' has no limits"),
        ({"limits": (1.0, 0.0)}, "give the smallest amount and the largest"),
        ({"limits": (1.0, float("inf"))}, "a number of a gate's limits is inf"),
        ({"limits": 3}, "it must be a list"),
        ({"sae": "some/folder"}, "an SAE is needed, as load_sae returns it, not 'some/folder'"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Gate(**{"hook_name": SITE, "weights": torch.ones(D_MODEL), **settings})


def test_a_gate_of_another_sae_or_model_is_refused(llama, random_sae):
    with pytest.raises(InputError, match="24 weights, but its SAE has 48 latents"):
        Gate(SITE, torch.ones(24), sae=random_sae())
    with pytest.raises(InputError, match=r"trained at blocks\.0\.hook_resid_post, and cannot read"):
        Gate(SITE, torch.ones(48), sae=random_sae(hook_name="blocks.0.hook_resid_post"))
    with pytest.raises(InputError, match="the gate of direction 'd' has width 3"):
        branch(llama, PROMPTS, [dense(Gate(SITE, [1.0, 2.0, 3.0]))])
    far = dense(
        Gate("blocks.7.hook_resid_post", torch.ones(D_MODEL)), hook_name=SITE.replace("1", "8")
    )
    with pytest.raises(InputError, match="no site"):
        branch(llama, PROMPTS, [far])
    with pytest.raises(InputError, match="hook_resid_post, which is behind its own"):
        dense(Gate("blocks.2.hook_resid_post", torch.ones(D_MODEL)), hook_name=SITE)
    with pytest.raises(InputError, match="its gate must be a Gate, not float"):
        dense(0.5)


def test_a_scaled_direction_keeps_its_gate_and_a_sum_needs_a_common_one():
    gate = Gate(SITE, torch.ones(D_MODEL))
    one, other = dense(gate), dense(gate, seed=2)
    assert (2 * one).gate is (one + other).gate is gate
    with pytest.raises(InputError, match="have no sum, since a gate decides"):
        one + dense(None)


# --- `apply` ---


@pytest.mark.parametrize("positions", SPECS)
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_cache": False}, {"prefill_chunk_size": 5}, {"prompt_lookup_num_tokens": 3}],
    ids=["cached", "uncached", "chunks", "assisted"],
)
def test_transformers_generate_writes_as_without_the_gate_at_its_strength(
    tiny_bridge, random_sae, mask_by_hand, architecture, settings, positions
):
    if architecture == "gemma2" and "prompt_lookup_num_tokens" in settings:
        pytest.skip("transformers crops no cache of windows")
    model, edit = tiny_bridge(architecture), dense(gates(random_sae)["residual"], positions)
    for prompt in PROMPTS[:2]:
        with opened(model, prompt, edit, mask_by_hand).apply(model):
            expected = model.original_model.generate(ids(model, prompt), generation_config=config())
        with edit.apply(model):
            found = model.original_model.generate(
                ids(model, prompt), generation_config=config(**settings)
            )
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("settings", [{}, {"prefill_chunk_size": 7}])
def test_a_padded_batch_is_generated_as_each_alone(llama, random_sae, mask_by_hand, settings):
    edit = dense(gates(random_sae)["latents"])
    tokens, mask = left_padded(llama, PROMPTS)
    with edit.apply(llama):
        written = llama.original_model.generate(
            tokens, attention_mask=mask, generation_config=config(**settings)
        )
    for prompt, text in zip(PROMPTS, written, strict=True):
        with opened(llama, prompt, edit, mask_by_hand).apply(llama):
            [expected] = llama.original_model.generate(
                ids(llama, prompt), generation_config=config()
            )
        assert text[-len(expected) :].tolist() == expected.tolist()


def test_beams_of_a_prompt_share_what_its_gate_said(llama, random_sae, mask_by_hand):
    edit = dense(gates(random_sae)["residual"])
    beams = config(num_beams=3, num_return_sequences=2)
    tokens, mask = left_padded(llama, PROMPTS)
    with edit.apply(llama):
        written = llama.original_model.generate(
            tokens, attention_mask=mask, generation_config=beams
        )
    for i, prompt in enumerate(PROMPTS):
        with opened(llama, prompt, edit, mask_by_hand).apply(llama):
            expected = llama.original_model.generate(ids(llama, prompt), generation_config=beams)
        for found, right in zip(written[2 * i : 2 * i + 2], expected, strict=True):
            assert found[-len(right) :].tolist() == right.tolist()


def test_the_bridges_own_generate(llama, random_sae, mask_by_hand):
    edit = dense(gates(random_sae)["residual"], "all")
    settings = {"max_new_tokens": N_NEW, "do_sample": False, "stop_at_eos": False, "verbose": False}
    prompt = ids(llama, PROMPTS[0])
    with opened(llama, PROMPTS[0], edit, mask_by_hand).apply(llama):
        expected = llama.generate(prompt, **settings)
    with edit.apply(llama):
        assert llama.generate(prompt, **settings).tolist() == expected.tolist()
        pieces = list(llama.generate_stream(prompt, **settings))
    assert torch.cat(pieces, -1)[0, -N_NEW:].tolist() == expected[0, -N_NEW:].tolist()


@pytest.mark.parametrize("positions", SPECS)
def test_apply_is_the_branch(llama, random_sae, positions):
    some = gates(random_sae)
    edits = [dense(some["residual"], positions), dense(some["cosine"], "all", SITE, seed=5)]
    expected = branch(llama, PROMPTS, [edits])[:, 1]
    tokens, mask = left_padded(llama, PROMPTS)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with apply_all(llama, edits), torch.no_grad():
        output = llama.original_model(tokens, attention_mask=mask, position_ids=places)
    torch.testing.assert_close(output.logits[:, -1].log_softmax(-1), expected, atol=1e-4, rtol=0)


def test_what_others_write_does_not_change_what_a_gate_reads(llama, random_sae):
    gate = gates(random_sae)["residual"]
    lower = dense(None, "all", "blocks.0.hook_resid_post", seed=7)
    edit = dense(gate)
    [expected] = branch(llama, PROMPTS[:1], [[lower, edit]])[:, 1]
    with lower.apply(llama), edit.apply(llama), torch.no_grad():
        found = llama.original_model(ids(llama, PROMPTS[0])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_gradients_flow_past_a_gate(llama, random_sae):
    edit = dense(gates(random_sae)["latents"])
    embedding = llama.original_model.get_input_embeddings().weight
    embedding.requires_grad_()
    try:
        with edit.apply(llama):
            loss = llama.original_model(ids(llama, PROMPTS[0])).logits[0, -1, 5]
        [gradient] = torch.autograd.grad(loss, embedding)
    finally:
        embedding.requires_grad_(False)
    assert gradient.abs().max() > 0


def test_a_loop_of_ones_own_keeps_what_the_gate_said_of_each_cache(llama, random_sae, mask_by_hand):
    edit = dense(gates(random_sae)["residual"])
    expected = []
    for prompt in PROMPTS:
        with opened(llama, prompt, edit, mask_by_hand).apply(llama):
            [text] = llama.original_model.generate(ids(llama, prompt), generation_config=config())
        expected.append(text[-N_NEW:].tolist())
    written = [[] for _ in PROMPTS]
    tokens, caches = [ids(llama, prompt) for prompt in PROMPTS], [None] * len(PROMPTS)
    with edit.apply(llama), torch.inference_mode():
        # In turns, so that what was said of one text is not taken for another's.
        for _ in range(N_NEW):
            for i, cache in enumerate(caches):
                output = llama.original_model(tokens[i], past_key_values=cache, use_cache=True)
                caches[i], tokens[i] = output.past_key_values, output.logits[:, -1:].argmax(-1)
                written[i].append(int(tokens[i]))
    assert written == expected


def test_what_goes_on_from_an_unknown_prompt_is_refused(llama, random_sae, hook_count):
    edit, prompt = dense(gates(random_sae)["residual"], "all"), ids(llama, PROMPTS[0])
    cache = DynamicCache(config=llama.original_model.config)
    before = hook_count(llama)
    with torch.inference_mode():
        llama.original_model(prompt[:, :-1], past_key_values=cache)
        with edit.apply(llama), pytest.raises(InputError, match="reads the whole prompt"):
            llama.original_model(prompt[:, -1:], past_key_values=cache)
        with edit.apply(llama):
            begun = llama.original_model(prompt[:, :4], use_cache=True).past_key_values
            with pytest.raises(InputError, match="reads the whole prompt"):
                llama.original_model(prompt[:, 4:8], past_key_values=begun)
    assert hook_count(llama) == before


def test_half_precision_reads_in_float32(llama, random_sae, tmp_path):
    from tiny import save_tiny_model

    half = load_model(save_tiny_model("llama", tmp_path / "llama"), device="cpu", dtype="bfloat16")
    gate = gates(random_sae)["residual"]
    rows = [llama.tokenizer(prompt).input_ids for prompt in PROMPTS]
    found = read_amounts(half, rows, [gate])[gate]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, read_amounts(llama, rows, [gate])[gate], atol=0.05, rtol=0)
    assert branch(half, PROMPTS, [dense(gate)]).isfinite().all()
