import pytest
import torch
import transformers
from tiny import ARCHITECTURES, D_MODEL, N_LAYERS, save_tiny_model
from transformers.convert_slow_tokenizer import bytes_to_unicode

from saepd.directions import Direction, apply_all
from saepd.errors import InputError
from saepd.generation import SamplingConfig, generate
from saepd.merge import MergeConfig, merge_branches
from saepd.models import load_model
from saepd.prompts import prompt_ids

SITE = "blocks.1.hook_resid_post"
LAST_SITE = f"blocks.{N_LAYERS - 1}.hook_resid_post"
PROMPT = "What is to be done about it? Well:: then"
SPECS = ("all", "prompt", "generated", "answer", "last(2)", 'after("::")')
STEERED_ALONE = MergeConfig("weighted", weights=(0.0, 1.0))

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def dense(seed=0, positions="answer", hook_name=SITE, size=1.5):
    vector = size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(f"p{seed}", hook_name, positions=positions, vector=vector)


def clamped(random_sae, seed=5, positions="answer", hook_name="blocks.2.hook_resid_pre"):
    return Direction(
        f"s{seed}",
        hook_name,
        mode="clamp",
        positions=positions,
        latents=torch.tensor([1, 4, 9]),
        values=torch.tensor([2.0, 1.0, 3.0]),
        sae=random_sae(seed=seed),
    )


def text(model, prompt, directions, merge=None, **sampling):
    return "".join(generate(model, prompt, directions, merge, SamplingConfig(**sampling)))


def decoded(model, tokens):
    """What the tokens say, without a character that is not whole yet at the end."""
    written = model.tokenizer.decode(tokens, skip_special_tokens=True)
    return written.rstrip("\N{REPLACEMENT CHARACTER}")


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

    monkeypatch.setattr("saepd.generation.merge_branches", next_wanted)
    pieces = list(generate(llama, PROMPT, [dense()], None, SamplingConfig(max_new_tokens=5)))
    assert pieces == ["n", "é"]


# --- where it ends ---


@pytest.fixture
def towards_end(llama):
    """A direction under which the end of the text is by far the most probable token."""
    vector = 100 * llama.W_U[:, llama.tokenizer.eos_token_id]
    return Direction("end", LAST_SITE, positions="generated", vector=vector)


def test_the_text_ends_with_the_end_token(llama, towards_end):
    settings = {"max_new_tokens": 12}
    assert text(llama, PROMPT, [dense(1)], STEERED_ALONE, **settings)
    at_once = Direction("end", LAST_SITE, positions="answer", vector=towards_end.vector)
    assert list(generate(llama, PROMPT, [at_once], STEERED_ALONE)) == []
    # Only what is written is pushed, so the first token is the prompt's own.
    first = text(llama, PROMPT, [dense(size=0.0)], max_new_tokens=1)
    assert len(first) == 1
    assert text(llama, PROMPT, [towards_end], STEERED_ALONE, **settings) == first


@pytest.mark.parametrize("several", [False, True])
def test_the_models_own_list_of_ends_counts(llama, monkeypatch, several):
    nothing = [dense(size=0.0)]
    whole = text(llama, PROMPT, nothing, max_new_tokens=8)
    end = llama.tokenizer(whole[0], add_special_tokens=False).input_ids[0]
    config = transformers.GenerationConfig(eos_token_id=[1, end] if several else end)
    monkeypatch.setattr(llama.original_model, "generation_config", config)
    assert text(llama, PROMPT, nothing, max_new_tokens=8) == ""


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


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.6), (1.0, 0.8)])
def test_tokens_are_drawn_as_often_as_they_are_probable(llama, monkeypatch, temperature, top_p):
    probabilities = torch.tensor([0.45, 0.3, 0.15, 0.1])
    letters = [llama.tokenizer(c, add_special_tokens=False).input_ids[0] for c in "abcd"]

    def fixed(branches, _config):
        merged = torch.full(branches.shape[:-2] + branches.shape[-1:], -torch.inf)
        merged[..., letters] = probabilities.log()
        return merged

    monkeypatch.setattr("saepd.generation.merge_branches", fixed)
    n = 100
    drawn = text(
        llama, "So?", [dense()], max_new_tokens=n, temperature=temperature, top_p=top_p, seed=1
    )
    assert len(drawn) == n
    expected = probabilities ** (1 / temperature)
    expected = expected / expected.sum()
    if top_p < 1:
        # The fewest tokens that hold top_p together.
        kept = int((expected.cumsum(0) < top_p).sum()) + 1
        assert kept < 4
        expected[kept:] = 0
        expected = expected / expected.sum()
    for letter, p in zip("abcd", expected.tolist(), strict=True):
        sigma = (n * p * (1 - p)) ** 0.5
        assert abs(drawn.count(letter) - n * p) <= 4 * sigma


# --- what is refused, and what is left behind ---


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: write at least one"),
        ({"temperature": -0.1}, "the temperature is -0.1"),
        ({"temperature": float("nan")}, "the temperature is nan"),
        ({"temperature": float("inf")}, "the temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
)
def test_samplings_that_are_none_are_refused(setting, match):
    with pytest.raises(InputError, match=match):
        SamplingConfig(**setting)


@pytest.mark.parametrize(
    ("prompt", "directions", "match"),
    [
        ("So?", [], "no directions: give at least one to merge with the base"),
        (" ", [dense()], "a prompt is empty"),
        ("x" * 256, [dense()], "prompt 0 has 257 tokens"),
        ("So?", [[]], "a branch has no directions"),
        ("So?", [dense(hook_name="blocks.9.hook_resid_post")], "no site"),
        ("So?", [dense(positions='after("!")')], "'!' does not occur"),
    ],
)
def test_what_cannot_be_continued_is_refused(llama, prompt, directions, match):
    with pytest.raises(InputError, match=match):
        list(generate(llama, prompt, directions))


def test_weights_must_fit_the_branches(llama):
    with pytest.raises(InputError, match="2 weights for 3 branches"):
        list(generate(llama, "So?", [dense(), dense(1)], STEERED_ALONE))


def test_a_reader_who_walks_away_leaves_the_model_as_it_was(llama, hook_count):
    before = hook_count(llama)
    pieces = generate(llama, PROMPT, [dense(1), dense(2, "all")])
    next(pieces)
    assert hook_count(llama) == before
    pieces.close()
    text(llama, PROMPT, [dense(1)], max_new_tokens=2)
    assert hook_count(llama) == before
