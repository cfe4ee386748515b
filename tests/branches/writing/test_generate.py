import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import transformers
from tiny import ARCHITECTURES, D_MODEL, N_LAYERS, save_tiny_model, tiny_tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from saepd.branches.writing.generate import (
    SamplingConfig,
    generate,
    generate_batch,
    generate_branches,
)
from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.merge.config import MergeConfig
from saepd.merge.operators import OPERATORS, merge_branches
from saepd.models import batching
from saepd.models.load import load_model
from saepd.models.tokens import prompt_ids

SITE = "blocks.1.hook_resid_post"
LAST_SITE = f"blocks.{N_LAYERS - 1}.hook_resid_post"
PROMPT = "What is to be done about it? Well:: then"
PROMPTS = ["So::?", PROMPT, "a:: b c"]
SPECS = ("every", "all", "prompt", "generated", "answer", "last(2)", 'after("::")')
STEERED_ALONE = MergeConfig("weighted", weights=(0.0, 1.0))

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def dense(seed=0, positions="answer", hook_name=SITE, size=1.5):
    vector = size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(f"p{seed}", hook_name, AddVector(vector), positions=positions)


def clamped(random_sae, seed=5, positions="answer", hook_name="blocks.2.hook_resid_pre"):
    sae = random_sae(seed=seed, hook_name=hook_name)
    edit = EditLatents(sae, [1, 4, 9], [2.0, 1.0, 3.0], "clamp")
    return Direction(f"s{seed}", hook_name, edit, positions=positions)


def text(model, prompt, directions, merge=None, **sampling):
    return "".join(generate(model, prompt, directions, merge, SamplingConfig(**sampling)))


def decoded(model, tokens):
    """What the tokens say, without a character that is not whole yet at the end."""
    written = model.tokenizer.decode(tokens, skip_special_tokens=True)
    return written.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [("Is it", " s s"), ("Is it ", "s s"), ("Is it  ", "s s"), ("Is it\n", " s s")],
)
def test_a_blank_that_ends_the_prompt_is_not_written_again(llama, monkeypatch, prompt, shown):
    # Words have their blank in their first token, as with most tokenizers.
    words = tiny_tokenizer(opens=False, merges=[("Ġ", "s"), ("Ġ", "A")])
    monkeypatch.setattr(llama.tokenizer, "_tokenizer", words.backend_tokenizer)
    [word] = words(" s", add_special_tokens=False).input_ids
    sampling, edits = SamplingConfig(max_new_tokens=2), [dense()]
    only = torch.full((int(llama.cfg.d_vocab),), -1e4)
    only[word] = 0.0
    hook = llama.unembed.register_forward_hook(lambda _module, _args, logits: logits + only)
    try:
        [merged] = generate_batch(llama, [prompt], edits, sampling=sampling)
        [apart] = generate_branches(llama, [prompt], edits, sampling)
        streamed = text(llama, prompt, edits, max_new_tokens=2)
    finally:
        hook.remove()
    assert merged.tokens == (word, word)
    assert [merged.text, streamed, *(one.text for one in apart)] == [shown] * 4


def merged_by_hand(model, log_probs_of, merge, n):
    """Greedy tokens, every branch read from the beginning at every step."""
    row = prompt_ids(model.tokenizer, PROMPT)
    written = []
    for _ in range(n):
        tokens = torch.tensor([row + written])
        branches = torch.stack(log_probs_of(tokens, len(row)), dim=1)
        token = int(merge_branches(branches, merge).argmax())
        if token == model.tokenizer.eos_token_id:
            break
        written.append(token)
    return decoded(model, written)


# --- greedy ---


@pytest.mark.parametrize(
    ("architecture", "operator"),
    zip(ARCHITECTURES, ("pluralistic", "mixture", "pluralistic", "product"), strict=True),
)
def test_greedy_text_is_that_of_separate_steered_runs(
    tiny_bridge, random_sae, architecture, operator
):
    model, merge = tiny_bridge(architecture), MergeConfig(operator)
    # "all" is the same whether a token was written or given, so whole texts can be run afresh.
    branches = [
        [dense(4, "all")],
        [clamped(random_sae, positions="all"), dense(14, "all", LAST_SITE)],
    ]

    def log_probs_of(tokens, _n_prompt):
        rows = []
        for directions in [[], *branches]:
            with torch.inference_mode(), apply_all(model, directions):
                rows.append(model(tokens)[:, -1].log_softmax(-1))
        return rows

    expected = merged_by_hand(model, log_probs_of, merge, 12)
    assert text(model, PROMPT, branches, merge, max_new_tokens=12) == expected
    assert len(expected) > 3
    assert expected != text(model, PROMPT, [dense(size=0.0)], merge, max_new_tokens=12)


@pytest.mark.parametrize("spec", SPECS)
def test_each_position_is_edited_as_in_a_forward_of_the_whole(
    llama, random_sae, mask_by_hand, spec
):
    directions = [dense(3, spec), clamped(random_sae, 6, spec)]

    def log_probs_of(tokens, n_prompt):
        mask = torch.tensor(mask_by_hand(spec, tokens[0].tolist(), n_prompt, llama.tokenizer))
        rows = []
        for direction in [None, *directions]:
            edits = []
            if direction is not None:

                def edit(h, hook, direction=direction):
                    return h + direction.delta(h) * mask[None, :, None]

                edits = [(direction.hook_name, edit)]
            with torch.inference_mode():
                rows.append(llama.run_with_hooks(tokens, fwd_hooks=edits)[:, -1].log_softmax(-1))
        return rows

    merge = MergeConfig("mixture")
    expected = merged_by_hand(llama, log_probs_of, merge, 14)
    assert text(llama, PROMPT, directions, merge, max_new_tokens=14) == expected
    assert len(expected) > 3


@every_architecture
def test_directions_that_change_nothing_leave_the_models_own_text(tmp_path, architecture):
    folder = save_tiny_model(architecture, tmp_path / "model", seed=3)
    model = load_model(folder, device="cpu")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    row = torch.tensor([prompt_ids(model.tokenizer, PROMPT)])
    output = plain.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=16, do_sample=False
    )
    expected = decoded(model, output[0, row.shape[1] :].tolist())
    nothing = [dense(size=0.0), dense(1, "all", size=0.0)]
    assert len(expected) > 3
    operator = dict(zip(ARCHITECTURES, ("pluralistic", "mixture", "cad", "dcd"), strict=True))
    merge = MergeConfig(operator[architecture])
    assert text(model, PROMPT, nothing, merge, max_new_tokens=16) == expected


def test_pieces_come_one_by_one_and_whole(llama):
    # Half of all bytes are half a character: they wait until they are whole.
    pieces = list(generate(llama, PROMPT, [dense(1)], None, SamplingConfig(max_new_tokens=30)))
    assert len(pieces) > 5
    assert all(pieces)
    assert not any(piece.endswith("\N{REPLACEMENT CHARACTER}") for piece in pieces)
    first = next(iter(generate(llama, PROMPT, [dense(1)], None, SamplingConfig())))
    assert first == pieces[0]


def test_half_a_character_is_not_shown(llama, monkeypatch):
    wanted = [*"né".encode(), *"\N{SNOWMAN}".encode()]
    vocab = llama.tokenizer.get_vocab()
    alphabet = bytes_to_unicode()
    queue = [vocab[alphabet[byte]] for byte in wanted]

    def next_wanted(branches, _config):
        one_hot = torch.full(branches.shape[:-2] + branches.shape[-1:], -1e4)
        one_hot[..., queue.pop(0)] = 0
        return one_hot

    monkeypatch.setitem(OPERATORS, "pluralistic", next_wanted)
    pieces = list(generate(llama, PROMPT, [dense()], None, SamplingConfig(max_new_tokens=5)))
    assert pieces == ["n", "é"]


# --- where it ends ---


@pytest.fixture
def towards_end(llama):
    """A direction under which the end of the text is by far the most probable token."""
    vector = 100 * llama.W_U[:, llama.tokenizer.eos_token_id]
    return Direction("end", LAST_SITE, AddVector(vector), positions="generated")


def test_the_text_ends_with_the_end_token(llama, towards_end):
    settings = {"max_new_tokens": 12}
    assert text(llama, PROMPT, [dense(1)], STEERED_ALONE, **settings)
    at_once = Direction("end", LAST_SITE, towards_end.edit, positions="answer")
    assert list(generate(llama, PROMPT, [at_once], STEERED_ALONE)) == []
    # Only what is written is pushed, so the first token is the prompt's own.
    first = text(llama, PROMPT, [dense(size=0.0)], max_new_tokens=1)
    assert len(first) == 1
    assert text(llama, PROMPT, [towards_end], STEERED_ALONE, **settings) == first


def test_a_model_without_generation_settings_ends_as_its_tokenizer_says(
    llama, towards_end, monkeypatch
):
    monkeypatch.setattr(llama.original_model, "generation_config", None)
    assert len(text(llama, PROMPT, [towards_end], STEERED_ALONE, max_new_tokens=12)) == 1


def test_no_more_is_written_than_was_asked_for(llama):
    long, short = (text(llama, PROMPT, [dense(1)], max_new_tokens=n) for n in (20, 6))
    assert long.startswith(short)
    assert len(short) <= 6 < len(long)


def test_the_context_may_be_filled_to_its_end(llama):
    prompt = "x" * 245
    assert text(llama, prompt, [dense(1)], max_new_tokens=10)
    with pytest.raises(InputError, match="prompt 0 has 246 tokens and needs 11 more"):
        text(llama, prompt, [dense(1)], max_new_tokens=11)


# --- sampling ---


def test_the_seed_decides_what_is_drawn(llama):
    drawn = [
        text(llama, PROMPT, [dense(1)], max_new_tokens=16, temperature=1.0, seed=seed)
        for seed in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    torch.manual_seed(123)
    again = text(llama, PROMPT, [dense(1)], max_new_tokens=16, temperature=1.0, seed=2)
    assert again == drawn[3]


def test_without_temperature_the_seed_does_not_matter(llama):
    texts = {text(llama, PROMPT, [dense(1)], max_new_tokens=16, seed=s) for s in range(3)}
    assert len(texts) == 1
    cold = text(llama, PROMPT, [dense(1)], max_new_tokens=16, temperature=1e-3, seed=4)
    assert {cold} == texts


def test_a_small_top_p_keeps_the_best_token_only(llama):
    greedy = text(llama, PROMPT, [dense(1)], max_new_tokens=16)
    hot = {"max_new_tokens": 16, "temperature": 3, "seed": 0}
    assert text(llama, PROMPT, [dense(1)], top_p=1e-6, **hot) == greedy
    assert text(llama, PROMPT, [dense(1)], top_p=1.0, **hot) != greedy


@pytest.mark.parametrize("option", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_every_filter_may_leave_the_best_token_only(llama, option):
    greedy = text(llama, PROMPT, [dense(1)], max_new_tokens=16)
    hot = {"max_new_tokens": 16, "temperature": 3, "seed": 0}
    assert text(llama, PROMPT, [dense(1)], **hot, **option) == greedy
    assert text(llama, PROMPT, [dense(1)], **hot) != greedy


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_stop_text_and_what_follows_it_are_not_shown(llama, temperature):
    settings = {"max_new_tokens": 24, "temperature": temperature}
    whole = text(llama, PROMPT, [dense(1)], **settings)
    stop = whole[5:8]
    sampling = SamplingConfig(**settings, stop=(stop, "never written"))
    pieces = list(generate(llama, PROMPT, [dense(1)], None, sampling))
    assert all(pieces)
    assert "".join(pieces) == whole[: whole.find(stop)]


# --- several prompts ---


def by_hand(model, prompt, branches, merge, n):
    """Greedy tokens, and every branch's log-probs [n, K+1, vocab], each text run afresh.

    "all" is the same whether a token was written or given, so `apply` edits as in generation.
    """
    row, written, log_probs = prompt_ids(model.tokenizer, prompt), [], []
    while len(written) < n:
        each = []
        for directions in [[], *branches]:
            with torch.inference_mode(), apply_all(model, directions):
                each.append(model(torch.tensor([row + written]))[0, -1].log_softmax(-1))
        log_probs.append(torch.stack(each))
        token = int(merge_branches(log_probs[-1], merge).argmax())
        if token == model.tokenizer.eos_token_id:
            break
        written.append(token)
    return written, torch.stack(log_probs)


@every_architecture
def test_a_batch_is_written_as_each_prompt_alone(tiny_bridge, random_sae, architecture):
    model, merge = tiny_bridge(architecture), MergeConfig("mixture")
    branches = [[dense(4, "all")], [clamped(random_sae, positions="all"), dense(14, "all")]]
    sampling = SamplingConfig(max_new_tokens=20)
    batch = generate_batch(model, PROMPTS, branches, merge, sampling)
    assert len({len(prompt_ids(model.tokenizer, p)) for p in PROMPTS}) == 3
    for prompt, found in zip(PROMPTS, batch, strict=True):
        expected, _ = by_hand(model, prompt, branches, merge, 20)
        assert list(found.tokens) == expected
        assert found.text == decoded(model, expected)
        assert found.text == text(model, prompt, branches, merge, max_new_tokens=20)
        assert found.ended_by == ("length" if len(expected) == 20 else "eos")
        assert found.steps == ()
    assert len({found.text for found in batch}) == 3


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("architecture", ["gemma2", "gpt2"])
def test_drawn_texts_do_not_depend_on_the_batch(
    tiny_bridge, random_sae, monkeypatch, architecture, spec
):
    model = tiny_bridge(architecture)
    directions = [dense(3, spec), clamped(random_sae, 6, spec)]
    sampling = SamplingConfig(max_new_tokens=12, temperature=1.2, top_p=0.95, seed=7)
    alone = [
        found
        for prompt in PROMPTS
        for found in generate_batch(model, [prompt], directions, None, sampling)
    ]
    assert generate_batch(model, PROMPTS, directions, None, sampling) == alone
    assert generate_batch(model, PROMPTS[::-1], directions, None, sampling) == alone[::-1]
    assert [f.text for f in alone] == [
        "".join(generate(model, prompt, directions, None, sampling)) for prompt in PROMPTS
    ]
    # However many run at once.
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 1)
    assert generate_batch(model, PROMPTS, directions, None, sampling) == alone


def cut_by_hand(tokens, ended_by, ends):
    """Up to the first of some tokens, and what ended the text."""
    first = min((i for i, token in enumerate(tokens) if token in ends), default=None)
    return list(tokens[:first]), ended_by if first is None else "eos"


def end_apart(texts):
    """A token that ends some texts earlier than others."""

    def lengths(end):
        return len({len(cut_by_hand(t.tokens, "", {end})[0]) for t in texts})

    best = max(sorted({token for t in texts for token in t.tokens}), key=lengths)
    assert lengths(best) > 1
    return best


@pytest.fixture
def ending(monkeypatch):
    """Let further tokens end a model's texts."""

    def end(model, tokens):
        config = transformers.GenerationConfig(eos_token_id=tokens)
        monkeypatch.setattr(model.original_model, "generation_config", config)

    return end


@every_architecture
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_each_row_ends_by_itself(tiny_bridge, ending, architecture, temperature):
    model, directions = tiny_bridge(architecture), [dense(1), dense(2, "all")]
    sampling = SamplingConfig(max_new_tokens=18, temperature=temperature)
    free = generate_batch(model, PROMPTS, directions, None, sampling)
    ends = [end_apart(free), free[1].tokens[-2]]
    ending(model, ends)
    found = generate_batch(model, PROMPTS, directions, None, sampling)
    expected = [cut_by_hand(f.tokens, f.ended_by, ends) for f in free]
    assert [(list(f.tokens), f.ended_by) for f in found] == expected


@every_architecture
def test_a_stop_text_ends_the_rows_that_write_it(tiny_bridge, architecture):
    model, directions = tiny_bridge(architecture), [dense(1), dense(2, "all")]
    settings = {"max_new_tokens": 24, "temperature": 1.0, "seed": 2}
    free = generate_batch(model, PROMPTS, directions, None, SamplingConfig(**settings))
    # Of two characters, and not in all of the texts.
    candidates = [f.text[i : i + 2] for f in free for i in range(2, len(f.text) - 2)]
    stop = next(c for c in candidates if not all(c in f.text for f in free))
    sampling = SamplingConfig(**settings, stop=(stop,))
    found = generate_batch(model, PROMPTS, directions, None, sampling)
    for before, after in zip(free, found, strict=True):
        assert after.text == before.text.partition(stop)[0]
        assert after.ended_by == ("stop" if stop in before.text else before.ended_by)
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert (stop in model.tokenizer.decode(after.tokens)) == (stop in before.text)


def test_equal_prompts_are_continued_equally(llama):
    sampling = SamplingConfig(max_new_tokens=12, temperature=2.0)
    first, second = generate_batch(llama, [PROMPT, PROMPT], [dense(1)], None, sampling)
    assert first == second


# --- unmerged ---


def alone_under(model, prompt, directions, n):
    """Tokens that Hugging Face's greedy loop writes while directions are applied."""
    tokens = torch.tensor([prompt_ids(model.tokenizer, prompt)])
    with apply_all(model, directions):
        out = model.generate(
            tokens,
            max_new_tokens=n,
            do_sample=False,
            stop_at_eos=False,
            use_past_kv_cache=False,
            verbose=False,
        )
    return out[0, tokens.shape[1] :].tolist()


@every_architecture
@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", SITE, "blocks.2.attn.hook_out"])
def test_branches_write_what_each_direction_writes_when_applied(
    tiny_bridge, random_sae, architecture, site
):
    model, n = tiny_bridge(architecture), 10
    branches = [
        [dense(1, "generated", site, size=3.0)],
        [dense(2, "all", LAST_SITE), clamped(random_sae, 5, "answer")],
        [dense(3, "last(2)", site, size=3.0)],
        [dense(4, 'after("::")', "blocks.3.hook_resid_pre", size=3.0)],
    ]
    found = generate_branches(model, PROMPTS, branches, SamplingConfig(max_new_tokens=n))
    end = {model.tokenizer.eos_token_id}
    for prompt, texts in zip(PROMPTS, found, strict=True):
        expected = [
            cut_by_hand(alone_under(model, prompt, d, n), "length", end) for d in [[], *branches]
        ]
        assert [(list(t.tokens), t.ended_by) for t in texts] == expected
        assert [t.text for t in texts] == [decoded(model, tokens) for tokens, _ in expected]
    assert len({t.text for t in found[0]}) > 3


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_each_branch_ends_by_itself(tiny_bridge, ending, monkeypatch, architecture):
    model = tiny_bridge(architecture)
    directions = [dense(1, "all"), dense(2, "generated")]
    sampling = SamplingConfig(max_new_tokens=16, temperature=1.0, seed=3)
    free = generate_branches(model, PROMPTS, directions, sampling)
    ends = [end_apart(texts) for texts in free]
    ending(model, ends)
    expected = [[cut_by_hand(t.tokens, t.ended_by, ends) for t in texts] for texts in free]

    def found(prompts):
        texts = generate_branches(model, prompts, directions, sampling)
        return [[(list(t.tokens), t.ended_by) for t in own] for own in texts]

    assert found(PROMPTS) == expected
    assert len({len(tokens) for texts in expected for tokens, _ in texts}) > 3
    assert [found([prompt])[0] for prompt in PROMPTS] == expected
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 1)
    assert found(PROMPTS) == expected


def test_a_special_token_is_steered_in_no_branch_that_writes_it(llama, ending, monkeypatch):
    # "all" leaves special tokens alone: here some branches write one and others do not.
    pad = llama.tokenizer.pad_token_id
    writes_pad = Direction("pad", LAST_SITE, AddVector(100 * llama.W_U[:, pad]), positions="answer")
    branches = [[writes_pad, dense(1, "all")], [dense(2, "all")]]
    found = generate_branches(llama, [PROMPT], branches, SamplingConfig(max_new_tokens=6))
    expected = [alone_under(llama, PROMPT, d, 6) for d in [[], *branches]]
    assert [list(t.tokens) for t in found[0]] == expected
    assert pad in expected[1] and pad not in expected[2]


def test_branches_share_their_luck(llama):
    # Directions that change nothing, or the same, change no draw.
    sampling = SamplingConfig(max_new_tokens=16, temperature=2.0, seed=5)
    same = [dense(size=0.0), dense(1), dense(1)]
    [base, nothing, one, other] = generate_branches(llama, [PROMPT], same, sampling)[0]
    assert base == nothing
    assert one == other != base
    merged = text(
        llama, PROMPT, [dense(1)], STEERED_ALONE, max_new_tokens=16, temperature=2, seed=5
    )
    assert merged == one.text


def test_a_prompt_is_continued_by_each_seed_as_by_a_run_with_that_seed(llama):
    sampling = SamplingConfig(max_new_tokens=8, temperature=2.0, seed=5)
    seeds = (3, 5, 8)
    apart = [
        generate_branches(llama, [PROMPT], [dense(1)], replace(sampling, seed=seed))[0]
        for seed in seeds
    ]
    assert generate_branches(llama, [PROMPT] * 3, [dense(1)], sampling, seeds=seeds) == apart
    assert len({own[0].text for own in apart}) == 3
    with pytest.raises(InputError, match="3 seeds for 1 prompts: give one for each"):
        generate_branches(llama, [PROMPT], [dense(1)], sampling, seeds=seeds)


# --- the trace ---


def disagreement_by_hand(log_probs):
    p = np.exp(log_probs.double().numpy())
    mean = p.mean(0)
    return float(-(mean * np.log(mean)).sum() + (p * np.log(p)).sum(-1).mean())


@every_architecture
@pytest.mark.parametrize("operator", ["pluralistic", "mixture", "cad"])
def test_the_trace_says_how_each_token_came_about(tiny_bridge, architecture, operator):
    model, merge = tiny_bridge(architecture), MergeConfig(operator)
    branches = [[dense(4, "all")], [dense(14, "all", LAST_SITE, size=3.0)], [dense(15, "all")]]
    sampling = SamplingConfig(max_new_tokens=10)
    moved = []
    for prompt, found in zip(
        PROMPTS,
        generate_batch(model, PROMPTS, branches, merge, sampling, trace=True),
        strict=True,
    ):
        tokens, log_probs = by_hand(model, prompt, branches, merge, 10)
        assert [s.token for s in found.steps] == tokens == list(found.tokens)
        for step, each in zip(found.steps, log_probs, strict=False):
            assert step.text == model.tokenizer.decode([step.token])
            merged = merge_branches(each, merge)
            assert step.probability == pytest.approx(float(merged[step.token].exp()), rel=1e-3)
            assert step.base_token == int(each[0].argmax())
            assert step.disagreement == pytest.approx(disagreement_by_hand(each), rel=1e-3)
            p = each.double().exp()
            expected = [float((p[0] * (p[0] / q).log()).sum()) for q in p[1:]]
            assert step.kl == pytest.approx(expected, rel=1e-3, abs=1e-6)
            for row, top in zip(each.exp().tolist(), step.top, strict=True):
                best = sorted(range(len(row)), key=lambda i: -row[i])[:5]
                assert [likely.token for likely in top] == best
                assert [likely.text for likely in top] == [
                    model.tokenizer.decode([i]) for i in best
                ]
                assert [likely.probability for likely in top] == pytest.approx(
                    [row[i] for i in best], rel=1e-3
                )
            odds = [float(row[step.token] - row[step.base_token]) for row in each]
            rises = [o - odds[0] for o in odds[1:]]
            expected = 1 + rises.index(max(rises)) if step.token != step.base_token else None
            assert step.moved_by == expected
            moved.append(step.moved_by)
    assert len(set(moved)) > 1


def test_the_trace_is_json_and_changes_nothing(llama, ending):
    sampling = SamplingConfig(max_new_tokens=12, temperature=1.3, seed=4)
    free = generate_batch(llama, PROMPTS, [dense(1)], None, sampling)
    ending(llama, [free[1].tokens[3]])
    plain = generate_batch(llama, PROMPTS, [dense(1)], None, sampling)
    traced = generate_batch(llama, PROMPTS, [dense(1)], None, sampling, trace=True)
    for one, other in zip(plain, traced, strict=True):
        assert (one.text, one.tokens, one.ended_by) == (other.text, other.tokens, other.ended_by)
        # The end-of-text token is not written, so it has no step.
        assert tuple(step.token for step in other.steps) == other.tokens
        assert one.steps == ()
        read = json.loads(json.dumps(asdict(other), allow_nan=False))
        assert read["tokens"] == list(other.tokens)
        assert read["steps"][0]["top"][1][0]["token"] == other.steps[0].top[1][0].token


def test_a_draw_shows_what_the_base_would_have_written_by_it(llama):
    sampling = SamplingConfig(max_new_tokens=16, temperature=1.5, top_k=20, seed=4)

    def steps(merge):
        branches = [dense(1, "all", size=4.0), dense(2, "all", size=4.0)]
        [found] = generate_batch(llama, [PROMPT], branches, merge, sampling, trace=True)
        return found.steps

    base_alone = steps(MergeConfig("weighted", weights=(1.0, 0.0, 0.0)))
    assert all(s.base_token == s.token and s.moved_by is None for s in base_alone)
    # The first token is drawn after the same prompt by the same luck, so the base's is the same.
    one_alone = steps(MergeConfig("weighted", weights=(0.0, 0.0, 1.0)))
    assert one_alone[0].base_token == base_alone[0].token
    assert {s.moved_by is None for s in one_alone} == {s.token == s.base_token for s in one_alone}
    assert any(s.moved_by == 2 for s in one_alone)


# --- what is refused, and what is left behind ---


def test_without_directions_only_the_base_can_write(llama):
    for write in (generate, generate_batch):
        with pytest.raises(InputError, match="no directions: give at least one to merge"):
            write(llama, "So?" if write is generate else ["So?"], [])
    for sampling in (SamplingConfig(), SamplingConfig(temperature=0.9, seed=3)):
        [[alone]] = generate_branches(llama, ["So?"], [], sampling)
        [[base, _]] = generate_branches(llama, ["So?"], [dense()], sampling)
        assert alone == base


@pytest.mark.parametrize(
    ("prompt", "directions", "match"),
    [
        (" ", [dense()], "a prompt is empty"),
        ("x" * 256, [dense()], "prompt 0 has 257 tokens"),
        ("So?", [[]], "a branch has no directions"),
        ("So?", [dense(hook_name="blocks.9.hook_resid_post")], "no site"),
        ("So?", [dense(positions='after("!")')], "'!' does not occur"),
    ],
)
def test_what_cannot_be_continued_is_refused(llama, prompt, directions, match):
    with pytest.raises(InputError, match=match):
        generate(llama, prompt, directions)
    # Nothing has run before that, however many of the prompts were good.
    ran = []
    handle = llama.blocks[0].register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        for write in (generate_batch, generate_branches):
            with pytest.raises(InputError, match=match.replace("prompt 0", "prompt 1")):
                write(llama, ["a good one!", prompt], directions)
    finally:
        handle.remove()
    assert not ran


@pytest.mark.parametrize("write", [generate_batch, generate_branches])
@pytest.mark.parametrize("prompts", [[], "a string"])
def test_prompts_come_in_a_list(llama, write, prompts):
    with pytest.raises(InputError, match="give a list of at least one prompt"):
        write(llama, prompts, [dense()])


def test_weights_must_fit_the_branches(llama):
    with pytest.raises(InputError, match="2 weights for 3 branches, base included"):
        generate(llama, "So?", [dense(), dense(1)], STEERED_ALONE)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_whose_branch_breaks_is_marked_and_the_others_are_written(llama, temperature):
    sampling = SamplingConfig(max_new_tokens=4, temperature=temperature)
    # Two of them together leave the range of float32, from the mark on.
    vast = Direction("vast", SITE, AddVector(torch.full((D_MODEL,), 2e38)), 'after("::")')
    broken, prompts = [dense(1), [vast, vast]], [PROMPT + "::", "as::", PROMPT + "!:: so"]
    said = "prompt 1: 'vast' is not a number from block 1 on: use smaller"
    with pytest.warns(UserWarning, match=said):
        written = generate_branches(llama, prompts, broken, sampling)
    alone = generate_branches(llama, prompts, [dense(1)], sampling)
    for texts, right in zip(written, alone, strict=True):
        assert texts[:2] == right
        assert texts[2].ended_by == "broken"
    # What stands behind the mark breaks: the first written token, but in the last prompt its end.
    assert [len(texts[2].tokens) for texts in written] == [1, 1, 0]
    with pytest.warns(UserWarning, match=said):
        merged = generate_batch(llama, prompts, broken, sampling=sampling)
    assert [text.ended_by for text in merged] == ["broken"] * 3
    with pytest.raises(InputError, match="is not a number from block 1 on"):
        list(generate(llama, prompts[0], broken, sampling=sampling))


def test_the_model_is_left_as_it_was(llama, hook_count):
    before = hook_count(llama)
    pieces = generate(llama, PROMPT, [dense(1), dense(2, "all")])
    next(pieces)
    assert hook_count(llama) == before
    pieces.close()
    text(llama, PROMPT, [dense(1)], max_new_tokens=2)
    generate_branches(llama, PROMPTS, [dense(1)], SamplingConfig(max_new_tokens=3))
    assert hook_count(llama) == before


def test_progress_is_told_of_prompts(llama):
    told, sampling = [], SamplingConfig(max_new_tokens=1)
    prompts = ["a" * 150, "b"]
    for write in (generate_batch, generate_branches):
        write(llama, prompts, [dense()], sampling=sampling, progress=lambda *n: told.append(n))
    assert told == [(1, 2), (2, 2)] * 2
