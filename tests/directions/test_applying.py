from contextlib import nullcontext

import pytest
import torch
from directed import PROMPT, SPECS, dense, every_spec, hooked_by_hand, sparse, tokens_of, vector
from tiny import ARCHITECTURES, D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.applying import apply_all, check_fits
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, Reconstruct


class Broken(Direction):
    def delta(self, h):
        raise RuntimeError("delta broke")


# --- what acts where ---


@every_spec
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_apply_acts_where_the_spec_says(tiny_bridge, mask_by_hand, architecture, positions):
    model = tiny_bridge(architecture)
    tokens = tokens_of(model)
    direction = dense(positions)
    mask = mask_by_hand(positions, tokens[0].tolist(), tokens.shape[1], model.tokenizer)
    with hooked_by_hand(model, direction, mask):
        expected = model(tokens)
    with direction.apply(model) as steered:
        assert steered is model
        torch.testing.assert_close(model(tokens), expected, atol=1e-5, rtol=1e-5)
    changed = (model(tokens) - expected).abs().amax(-1)[0] > 1e-4
    # A causal model: nothing changes before the first edit, everything may from there on.
    first = mask.index(True) if any(mask) else len(mask)
    assert not changed[:first].any()
    assert changed[first:].all()


@pytest.mark.parametrize("mode", ["add", "scale", "clamp", "ablate", "reconstruct"])
def test_apply_writes_the_delta_of_what_the_site_holds(llama, random_sae, mode):
    sae = random_sae("topk")
    direction = (
        Direction("r", SITE, Reconstruct(sae), positions="all")
        if mode == "reconstruct"
        else sparse(sae, mode, positions="all", coefficient=0.7)
    )
    tokens = tokens_of(llama)
    _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    before = cache[SITE].clone()
    expected = before + direction.coefficient * direction.edit.delta(before)
    expected[:, 0] = before[:, 0]
    with direction.apply(llama):
        _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    torch.testing.assert_close(cache[SITE], expected, atol=1e-5, rtol=1e-5)
    assert (expected - before).abs().max() > 0.1


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("positions", [s for s in SPECS if s != "generated"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_padded_batch_of_strings_is_each_string_alone(tiny_bridge, architecture, positions, side):
    model = tiny_bridge(architecture)
    texts = ["a:: b", PROMPT, "Somewhat longer than the others:: c"]
    with dense(positions).apply(model):
        alone = [model(text)[0, -1] for text in texts]
        batch = model(texts, padding_side=side)
    lengths = [model.to_tokens(text).shape[1] for text in texts]
    for row, length, expected in zip(batch, lengths, alone, strict=True):
        last = row[length - 1] if side == "right" else row[-1]
        torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert (model(texts[0])[0, -1] - alone[0]).abs().max() > 1e-3


# --- generation ---

N_NEW = 5


def generate(model, prompt=PROMPT, *, cached=True):
    """Greedily sampled tokens [batch, new] and the logits [batch, new, vocab] they came from."""
    out = model.generate(
        prompt,
        max_new_tokens=N_NEW,
        do_sample=False,
        stop_at_eos=False,
        use_past_kv_cache=cached,
        output_logits=True,
        return_type="tokens",
        verbose=False,
    )
    return out.sequences[:, -N_NEW:], torch.stack(out.logits, dim=1)


def generated_by_hand(model, direction, mask_by_hand):
    """The same without cache and without `apply`: one hooked forward of everything per token."""
    tokens = model.to_tokens(PROMPT)
    n_prompt, logits = tokens.shape[1], []
    for _ in range(N_NEW):
        mask = mask_by_hand(direction.positions, tokens[0].tolist(), n_prompt, model.tokenizer)
        with hooked_by_hand(model, direction, mask):
            logits.append(model(tokens)[:, -1])
        tokens = torch.cat([tokens, logits[-1].argmax(-1, keepdim=True)], dim=1)
    return tokens[:, n_prompt:], torch.stack(logits, dim=1)


@every_spec
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_generation_is_steered_at_every_step(tiny_bridge, mask_by_hand, architecture, positions):
    model = tiny_bridge(architecture)
    direction = dense(positions)
    expected_tokens, expected = generated_by_hand(model, direction, mask_by_hand)
    _, unsteered = generate(model)
    for cached in (True, False):
        with direction.apply(model):
            tokens, logits = generate(model, cached=cached)
        assert torch.equal(tokens, expected_tokens), f"cached={cached}"
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    if positions == "generated":
        # The first sampled token is still the base model's; what follows it is not.
        torch.testing.assert_close(logits[:, 0], unsteered[:, 0], atol=1e-5, rtol=1e-5)
    else:
        assert (logits[:, 0] - unsteered[:, 0]).abs().max() > 1e-2
    assert (logits[:, 1:] - unsteered[:, 1:]).abs().amax(-1).min() > 1e-2


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_steering_does_not_stop_after_the_prompt(tiny_bridge, architecture):
    model = tiny_bridge(architecture)
    with dense("answer").apply(model):
        throughout, logits = generate(model)
    with dense("last(1)").apply(model):
        at_the_prompt, other = generate(model)
    torch.testing.assert_close(logits[:, 0], other[:, 0], atol=1e-5, rtol=1e-5)
    assert throughout.shape == at_the_prompt.shape == (1, N_NEW)
    assert (logits[:, 1] - other[:, 1]).abs().max() > 1e-2


@every_spec
@pytest.mark.parametrize("cached", [True, False])
def test_a_batch_is_generated_as_each_of_its_strings_alone(tiny_bridge, cached, positions):
    model = tiny_bridge("gpt2")
    texts = ["a:: b", PROMPT]
    with dense(positions).apply(model):
        alone = [generate(model, text, cached=cached) for text in texts]
        tokens, logits = generate(model, texts, cached=cached)
    assert torch.equal(tokens, torch.cat([t for t, _ in alone]))
    together = torch.cat([each for _, each in alone])
    torch.testing.assert_close(logits, together, atol=1e-4, rtol=1e-4)


def test_every_way_of_generating_is_steered(llama):
    ids = tokens_of(llama)
    options = {"max_new_tokens": N_NEW, "do_sample": False, "use_past_kv_cache": False}
    plain = llama.generate(ids, stop_at_eos=False, verbose=False, **options)
    with dense("generated").apply(llama):
        steered = llama.generate(ids, stop_at_eos=False, verbose=False, **options)
        parts = llama.generate_stream(ids, stop_at_eos=False, verbose=False, **options)
        streamed = torch.cat(list(parts), dim=1)
        hugging = llama.hf_generate(
            ids,
            max_new_tokens=N_NEW,
            min_new_tokens=N_NEW,
            do_sample=False,
            use_past_kv_cache=False,
            return_type="tokens",
        )
    assert not torch.equal(steered, plain)
    assert torch.equal(streamed[:, -N_NEW:], steered[:, -N_NEW:])
    assert torch.equal(hugging[:, -N_NEW:], steered[:, -N_NEW:])


def test_after_generating_a_forward_sees_a_prompt_again(llama):
    direction = dense("prompt")
    with direction.apply(llama):
        expected = llama(tokens_of(llama))
    with direction.apply(llama):
        generate(llama, "x")
        with pytest.raises(TypeError):
            llama.generate("x", max_new_tokens="many")
        assert torch.equal(llama(tokens_of(llama)), expected)


def test_the_methods_of_generation_are_the_models_own_again(llama):
    names = ("generate", "generate_stream", "hf_generate")
    with dense().apply(llama):
        assert all(name in vars(llama) for name in names)
    assert not any(name in vars(llama) for name in names)
    with pytest.raises(RuntimeError, match="delta broke"), Broken(**fields(dense())).apply(llama):
        generate(llama)
    assert not any(name in vars(llama) for name in names)


def fields(direction):
    return {name: getattr(direction, name) for name in direction.__dataclass_fields__}


# --- leaving the model as it was ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_neither_the_model_nor_what_is_steered_takes_gradients(tiny_bridge, architecture):
    model = tiny_bridge(architecture)
    with dense().apply(model):
        assert not model(tokens_of(model)).requires_grad
    assert not any(weight.requires_grad for weight in model.original_model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("where", ["nowhere", "in the block", "in the forward"])
def test_afterwards_the_model_is_bit_for_bit_as_before(
    tiny_bridge, hook_count, architecture, where
):
    model = tiny_bridge(architecture)
    tokens = tokens_of(model)
    before, n_hooks = model(tokens), hook_count(model)
    broken = where == "in the forward"
    direction = Broken(**fields(dense())) if broken else dense()
    fails = nullcontext() if where == "nowhere" else pytest.raises(RuntimeError, match="broke")
    with fails, direction.apply(model):
        assert hook_count(model) > n_hooks
        assert not torch.equal(model(tokens), before)
        if where == "in the block":
            raise RuntimeError("the user's code broke")
    assert hook_count(model) == n_hooks
    assert torch.equal(model(tokens), before)


def test_a_direction_that_does_not_fit_leaves_no_hook(llama, hook_count):
    n_hooks = hook_count(llama)
    unfit = dense(hook_name="blocks.9.hook_resid_post")
    with pytest.raises(InputError), apply_all(llama, [dense(), unfit]):
        pytest.fail("it was applied")
    assert hook_count(llama) == n_hooks
    assert "generate" not in vars(llama)


def test_hooks_of_the_user_survive(llama):
    tokens, seen = tokens_of(llama), []
    point = llama.hook_dict[SITE]
    handle = point.register_forward_hook(lambda _m, _a, h: seen.append(("torch", h.sum())))
    llama.add_hook(SITE, lambda h, hook: seen.append(("lens", h.sum())))
    try:
        llama(tokens)
        before = dict(seen)
        with dense().apply(llama):
            # Also those that come and go inside the block.
            llama.run_with_hooks(tokens, fwd_hooks=[(SITE, lambda h, hook: None)])
            seen.clear()
            steered = llama(tokens)
        assert {name for name, _ in seen} == {"torch", "lens"}
        seen.clear()
        unsteered = llama(tokens)
        assert dict(seen) == before
        assert not torch.equal(steered, unsteered)
    finally:
        handle.remove()
        llama.reset_hooks()


def test_a_user_hook_added_inside_sees_the_steered_site(llama):
    tokens, seen = tokens_of(llama), []
    direction = dense("answer")
    keep = [(SITE, lambda h, hook: seen.append(h.clone()))]
    llama.run_with_hooks(tokens, fwd_hooks=keep)
    with direction.apply(llama):
        llama.run_with_hooks(tokens, fwd_hooks=keep)
        after = llama(tokens)
    torch.testing.assert_close(seen[1][:, -1], seen[0][:, -1] + direction.edit.vector)
    assert torch.equal(seen[1][:, :-1], seen[0][:, :-1])
    assert (after - llama(tokens)).abs().max() > 1e-2


# --- several at once ---


def test_nested_directions_add_up_and_come_off_one_by_one(llama):
    tokens = tokens_of(llama)
    outer, inner = dense("answer", seed=1), dense("all", "blocks.2.hook_resid_pre", seed=2)
    with apply_all(llama, [outer, inner]):
        both, both_generated = llama(tokens), generate(llama)
    with apply_all(llama, [outer]):
        one, one_generated = llama(tokens), generate(llama, cached=False)
    none = llama(tokens)
    with outer.apply(llama):
        with inner.apply(llama):
            torch.testing.assert_close(llama(tokens), both, atol=1e-5, rtol=1e-5)
            tokens_now, logits = generate(llama)
            assert torch.equal(tokens_now, both_generated[0])
            torch.testing.assert_close(logits, both_generated[1], atol=1e-4, rtol=1e-4)
        assert torch.equal(llama(tokens), one)
        # Uncached, only the wrapped method knows what was generated.
        assert torch.equal(generate(llama, cached=False)[1], one_generated[1])
    assert torch.equal(llama(tokens), none)
    assert not torch.equal(both, one)
    assert not torch.equal(one, none)


def test_the_inner_of_two_ends_when_the_block_does(llama):
    generated = dense("generated")
    with generated.apply(llama):
        expected = generate(llama, cached=False)
    with dense().apply(llama), dense(seed=1).apply(llama):
        pass
    with generated.apply(llama):
        with dense(seed=1).apply(llama):
            pass
        assert torch.equal(generate(llama, cached=False)[1], expected[1])
    assert "generate" not in vars(llama)


def test_directions_of_one_site_see_it_as_it_was(llama, random_sae):
    sae, tokens = random_sae(), tokens_of(llama)
    _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    h = cache[SITE].clone()
    clamp, push = sparse(sae, "clamp", positions="answer"), dense("answer")
    with apply_all(llama, [push, clamp]):
        _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    expected = h[:, -1] + push.edit.vector + clamp.delta(h[:, -1])
    torch.testing.assert_close(cache[SITE][:, -1], expected, atol=1e-5, rtol=1e-5)
    one_after_the_other = h[:, -1] + push.edit.vector + clamp.delta(h[:, -1] + push.edit.vector)
    assert (one_after_the_other - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"edit": AddVector(torch.ones(48))}, "'p' has width 48, but the model's residual has 32"),
        ({"hook_name": "blocks.4.hook_resid_post"}, r"no site 'blocks.4\S+: its blocks are 0\.\.3"),
        ({"hook_name": "blocks.1.hook_nonsense"}, r"no site 'blocks.1.hook_nonsense'"),
        (
            {"hook_name": "unembed.hook_in"},
            "not made at 'unembed.hook_in': that is outside",
        ),
        ({"lineage": {"model": "gpt2"}}, "made for 'gpt2', not for 'llama'"),
    ],
)
def test_a_direction_for_another_model_is_refused(llama, changes, match):
    good = {"hook_name": SITE, "edit": AddVector(vector()), "lineage": {"model": "llama"}}
    check_fits(llama, [Direction("p", **good)])
    assert "unembed.hook_in" in llama.hook_dict
    with pytest.raises(InputError, match=match):
        check_fits(llama, [Direction("q", **good), Direction("p", **(good | changes))])


def test_an_sae_of_another_width_is_refused(llama, random_sae):
    with pytest.raises(InputError, match="'sparse' has width 40"):
        check_fits(llama, [sparse(random_sae(d_in=40))])


def test_embeddings_instead_of_tokens_are_refused(llama):
    with dense().apply(llama), pytest.raises(InputError, match="steering needs token ids"):
        llama(torch.randn(1, 4, D_MODEL))
