from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction, apply_all, check_fits
from saepd.directions.edits import AddVector, EditLatents, Reconstruct, decoder_rows
from saepd.directions.gate import Gate

SPECS = ("every", "all", "prompt", "generated", "answer", "last(2)", 'after("::")')
PROMPT = "Which is it? Say:: so"
LATENTS, VALUES = torch.tensor([3, 17, 40]), torch.tensor([2.0, -1.5, 3.0])

every_spec = pytest.mark.parametrize("positions", SPECS)


def vector(seed=0, size=3.0):
    return size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


def dense(positions="all", hook_name=SITE, seed=0, **settings):
    return Direction("dense", hook_name, AddVector(vector(seed)), positions=positions, **settings)


def sparse(sae, mode="add", values=VALUES, **settings):
    values = None if mode == "ablate" else values
    return Direction("sparse", SITE, EditLatents(sae, LATENTS, values, mode), **settings)


def tokens_of(model, text=PROMPT):
    return torch.tensor([model.tokenizer(text, add_special_tokens=False).input_ids])


@contextmanager
def hooked_by_hand(model, direction, mask):
    """The direction's own vector at the places of a mask, without any of `apply`'s machinery."""
    places = torch.tensor([mask]).unsqueeze(-1).float()
    point = model.hook_dict[direction.hook_name]
    handle = point.register_forward_hook(lambda _m, _a, h: h + places * direction.delta(h))
    yield
    handle.remove()


class Broken(Direction):
    def delta(self, h):
        raise RuntimeError("delta broke")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base", "'base' is what saepd calls the model without steering"),
        (" merged", "'merged' is what saepd calls the answer of all"),
        ("all", "'all' is what saepd calls the mean"),
        ("", "a perspective needs a name"),
        ("\u200b", "only characters that cannot be seen"),
        ("A\0", "holds the control character"),
        (3, "its perspective must be text"),
    ],
)
def test_a_name_that_feedback_may_not_have_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        Direction(name, SITE, AddVector(vector()))


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


# --- the data itself ---


def test_scaled_replaces_the_coefficient(random_sae):
    sae, h = random_sae(), torch.randn(4, D_MODEL)
    for mode in ("add", "scale", "clamp", "ablate"):
        direction = sparse(sae, mode, coefficient=0.5, positions="prompt", lineage={"x": 1})
        once, thrice = direction.scaled(1.0), direction.scaled(-3.0)
        assert (direction.coefficient, thrice.coefficient) == (0.5, -3.0)
        assert once.delta(h).abs().max() > 0.01
        torch.testing.assert_close(thrice.delta(h), -3 * once.delta(h), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(direction.delta(h), once.delta(h) / 2, atol=1e-5, rtol=1e-5)
        assert (thrice.edit.mode, thrice.positions, thrice.lineage) == (mode, "prompt", {"x": 1})
    pushed = dense().scaled(2.0)
    torch.testing.assert_close(pushed.delta(h), (2 * vector()).expand(4, -1))


def test_constant_is_what_add_writes_everywhere_and_none_elsewhere(random_sae):
    h = torch.randn(4, D_MODEL)
    sae = random_sae()
    added = sparse(sae, coefficient=2.0)
    expected = 2 * (VALUES @ sae.W_dec[LATENTS])
    torch.testing.assert_close(added.constant, expected)
    torch.testing.assert_close(added.delta(h), expected.expand(4, -1))
    torch.testing.assert_close(dense(coefficient=-1.0).constant, -vector())
    assert all(sparse(sae, mode).constant is None for mode in ("scale", "clamp", "ablate"))
    normalised = sparse(random_sae(normalize_activations="layer_norm"))
    assert normalised.constant is None
    assert normalised.delta(h).std(0).max() > 0.01


def test_delta_takes_the_precision_of_the_activation(random_sae):
    h = torch.randn(4, D_MODEL).bfloat16()
    for direction in (dense(), sparse(random_sae()), sparse(random_sae(), "clamp")):
        assert direction.delta(h).dtype == torch.bfloat16


def test_block_is_that_of_the_site():
    assert dense(hook_name="blocks.13.hook_mlp_out").block == 13


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"perspective": 3}, "its perspective must be text, not 3"),
        ({"hook_name": 15}, "direction 'p': its hook_name must be text, not 15"),
        ({"positions": 3}, "its positions must be text"),
        ({"positions": "lasst(2)"}, "unknown positions"),
        ({"coefficient": NAN}, "coefficient is nan: it must be finite"),
        ({"coefficient": float("inf")}, "must be finite"),
        ({"coefficient": "2"}, "the coefficient is 2"),
        (
            {"edit": torch.ones(D_MODEL)},
            "must be AddVector, EditLatents or Reconstruct, not Tensor",
        ),
    ],
)
def test_a_direction_that_makes_no_sense_is_refused(changes, match):
    settings = {"perspective": "p", "hook_name": SITE, "edit": AddVector(vector())}
    Direction(**settings)
    with pytest.raises(InputError, match=match):
        Direction(**(settings | changes))


@pytest.mark.parametrize("kind", ["latents", "reconstruct"])
def test_an_sae_edits_its_own_site_only(random_sae, kind):
    sae = random_sae(hook_name="blocks.1.hook_resid_post")
    edit = Reconstruct(sae) if kind == "reconstruct" else EditLatents(sae, [3], [1.0])
    for same in ("blocks.1.hook_resid_post", "blocks.1.hook_out", "blocks.2.hook_resid_pre"):
        assert Direction("p", same, edit).hook_name == same
    for other in (
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
        "blocks.2.hook_resid_post",
        "blocks.1.hook_mlp_out",
    ):
        with pytest.raises(InputError, match=f"trained at blocks.1.hook_resid_post, .* {other}"):
            Direction("p", other, edit)


# --- arithmetic ---


def test_a_multiple_has_the_multiple_of_the_coefficient(random_sae):
    for direction in (dense(coefficient=0.5), sparse(random_sae(), "clamp", coefficient=0.5)):
        for made, coefficient in ((2 * direction, 1.0), (direction * 3, 1.5), (-direction, -0.5)):
            assert made.coefficient == coefficient
            assert made.edit is direction.edit
            assert made.positions == direction.positions
    with pytest.raises(TypeError):
        dense() * dense()
    with pytest.raises(InputError, match="must be finite"):
        dense() * float("nan")


def test_a_sum_adds_what_both_add(llama, random_sae):
    one = dense("answer", seed=1, coefficient=2.0, lineage={"model": "llama", "note": "one"})
    other = sparse(random_sae(), positions="answer", lineage={"model": "llama", "note": "other"})
    tokens = tokens_of(llama)
    for made, parts in ((one + other, [one, other]), (one - other, [one, -other])):
        with apply_all(llama, parts):
            expected = llama(tokens)
        with made.apply(llama):
            torch.testing.assert_close(llama(tokens), expected, atol=1e-5, rtol=1e-5)
    total = one + other
    assert (total.perspective, total.hook_name, total.coefficient) == ("dense + sparse", SITE, 1.0)
    assert total.lineage == {"model": "llama"}
    assert isinstance(total.edit, AddVector)


def test_a_sum_acts_at_all_places_of_both(llama, random_sae):
    one = dense("answer", coefficient=2.0)
    tokens = tokens_of(llama)
    for other in (
        dense("all", seed=1),
        dense("answer", "blocks.2.hook_resid_post", seed=1, coefficient=0.5),
        sparse(random_sae(), "clamp", positions="answer"),
    ):
        for made, parts in (
            (one + other, [one, other]),
            (3 * (one - other), [3 * one, -3 * other]),
        ):
            assert len(made.parts) == 2
            with apply_all(llama, parts):
                expected = llama(tokens)
            with made.apply(llama):
                torch.testing.assert_close(llama(tokens), expected, atol=1e-5, rtol=1e-5)
    several = one + dense("answer", "blocks.2.hook_resid_post", seed=1)
    twice = several + several
    assert [part.hook_name for part in twice.parts] == [p.hook_name for p in several.parts]
    torch.testing.assert_close(twice.parts[1].constant, 2 * several.parts[1].constant)


def test_what_is_done_at_further_sites_must_be_a_plain_direction_of_the_same_name():
    gate = Gate(SITE, torch.ones(D_MODEL))
    later = dense(hook_name="blocks.2.hook_resid_post")
    assert dense(also=[later]).also == (later,)
    for also, match in [
        ([vector()], "must be a Direction at another site"),
        ([replace(later, perspective="other")], "is called 'other': give it the same name"),
        ([replace(later, also=(later,))], "further sites of its own"),
        ([replace(later, gate=gate)], "has a gate"),
    ]:
        with pytest.raises(InputError, match=match):
            dense(also=also)
    with pytest.raises(InputError, match=r"is behind its own site blocks\.0"):
        dense(also=[dense(hook_name="blocks.0.hook_resid_post")], gate=gate)


def test_a_direction_of_several_sites_shows_all_of_them(random_sae):
    direction = sparse(random_sae(), also=[replace(dense(), perspective="sparse")])
    assert "also AddVector" in repr(direction)
    frame = direction.frame()
    assert frame.latent.notna().sum() == len(LATENTS) and len(frame) == len(LATENTS) + 1
    assert direction._repr_html_().count("positions") == 2
    assert not direction.writes_nothing
    nothing = dense(also=[0 * dense(hook_name="blocks.2.hook_resid_post")], coefficient=0.0)
    assert nothing.writes_nothing
    assert not sparse(random_sae(), "ablate").writes_nothing


def test_a_sum_that_makes_no_sense_is_refused():
    one = dense("answer", lineage={"model": "llama"})
    for other, match in [
        (dense("answer", lineage={"model": "gpt2"}), "for different models"),
        (Direction("w", SITE, AddVector([1.0, 2.0])), "for different models"),
        (dense("answer", gate=Gate(SITE, torch.ones(D_MODEL))), "a gate decides"),
    ]:
        with pytest.raises(InputError, match=match):
            one + other
    # What one block puts out is what the next is given.
    assert (one + dense("answer", "blocks.2.hook_resid_pre")).hook_name == SITE


# --- what a direction costs, and how it looks ---


def test_directions_of_many_strengths_share_their_edit(random_sae):
    for direction in (dense(), *(sparse(random_sae(), m) for m in ("add", "clamp", "ablate"))):
        many = [direction.scaled(2.0**i) for i in range(15)]
        assert all(one.edit is direction.edit for one in many)
        h = torch.randn(2, D_MODEL)
        for one in many:
            one.delta(h)
    rows = many[0].edit._rows.data_ptr()
    assert all(one.edit._rows.data_ptr() == rows for one in many)


def test_the_constant_vector_is_computed_once(random_sae, monkeypatch):
    direction, h = sparse(random_sae()), torch.randn(2, D_MODEL)
    read = []
    monkeypatch.setattr(
        "saepd.directions.edits.decoder_rows",
        lambda sae, latents: read.append(latents) or decoder_rows(sae, latents),
    )
    for strength in (1.0, 2.0, 3.0):
        for _ in range(3):
            direction.scaled(strength).delta(h)
    assert len(read) == 1


def test_numbers_of_the_caller_may_change_afterwards():
    numbers = vector()
    direction = Direction("p", SITE, AddVector(numbers))
    numbers.zero_()
    assert torch.equal(direction.constant, vector())


def test_a_direction_is_shown_in_a_line(random_sae):
    for made in (
        dense(),
        sparse(random_sae(), "clamp"),
        Direction("r", SITE, Reconstruct(random_sae())),
    ):
        assert len(repr(made)) < 160
        assert "\n" not in repr(made)
    assert repr(sparse(random_sae(), "clamp", coefficient=2.0)) == (
        f"Direction('sparse', '{SITE}', EditLatents(clamp 3 latents of {SITE}), "
        "positions='answer', coefficient=2)"
    )


# --- the wrong company ---


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
