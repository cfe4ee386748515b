import types
from itertools import pairwise

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.loop import Ends, GrowingText, ends_of
from saepd.branches.writing.sampling import Sampler
from saepd.common.errors import InputError

BYTES = tiny_tokenizer()
CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([0.06, 0.3, 0.02, 0.24, 0.1, 0.2, 0.05, 0.03])


def ids(text):
    return BYTES(text, add_special_tokens=False).input_ids


# --- the options ---


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be a whole number at least 1"),
        ({"temperature": -0.1}, "the temperature is -0.1: it must be a finite number at least 0"),
        ({"temperature": 1e-9}, "the temperature is 1e-09: give 0, or 1e-06 and more"),
        ({"temperature": "hot"}, "the temperature is 'hot'"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5: it must be a whole number"),
        ({"temperature": 1, "top_k": 1.5}, "top_k is 1.5: it must be a whole number"),
        ({"temperature": 1, "top_p": "most"}, "top_p is 'most'"),
        ({"seed": "x"}, "the seed is 'x'"),
        ({"temperature": float("nan")}, "the temperature is nan"),
        ({"temperature": float("inf")}, "the temperature is inf"),
        ({"temperature": 1, "top_k": -1}, "top_k is -1"),
        ({"temperature": 1, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1, "top_p": 1.1}, "top_p is 1.1"),
        ({"temperature": 1, "top_p": float("nan")}, "top_p is nan"),
        ({"temperature": 1, "min_p": -0.1}, "min_p is -0.1"),
        ({"temperature": 1, "min_p": 1.1}, "min_p is 1.1"),
        ({"temperature": 1, "min_p": float("nan")}, "min_p is nan"),
        ({"top_k": 5}, "^top_k would do nothing at temperature 0"),
        ({"top_p": 0.5}, "^top_p would do nothing at temperature 0"),
        ({"min_p": 0.1, "top_k": 5}, "^top_k and min_p would do nothing at temperature 0"),
        ({"stop": ("a", "")}, r"stop is \('a', ''\): give a list of texts"),
        ({"stop": "END"}, "stop is 'END': give a list of texts"),
        ({"stop": 5}, "stop is 5: give a list of texts"),
        ({"stop": ["a", 5]}, "stop is .* give a list of texts"),
    ],
)
def test_samplings_that_are_none_are_refused(setting, match):
    with pytest.raises(InputError, match=match):
        SamplingConfig(**setting)


def test_the_limits_of_each_option_are_allowed():
    SamplingConfig(1, 1e-6, top_k=1, top_p=1e-6, min_p=1.0, stop=("x",))
    SamplingConfig(temperature=0, top_k=0, top_p=1, min_p=0, stop=())


# --- drawing ---


def allowed_by_hand(temperature, top_k, top_p, min_p):
    """The distribution that is left, one filter after the other."""
    p = {i: v ** (1 / temperature) for i, v in enumerate(PROBABILITIES.tolist())}

    def normalised(p):
        return {i: v / sum(p.values()) for i, v in p.items()}

    best = sorted(p, key=lambda i: -p[i])
    if top_k:
        p = {i: p[i] for i in best[:top_k]}
    p = normalised(p)
    if top_p < 1:
        kept, held = {}, 0.0
        for i in best:
            if i in p and held < top_p:
                kept[i] = p[i]
                held += p[i]
        p = normalised(kept)
    if min_p:
        p = normalised({i: v for i, v in p.items() if v >= min_p * max(p.values())})
    return torch.tensor([p.get(i, 0.0) for i in range(len(PROBABILITIES))])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.5, 0, 1.0, 0.0),
        (2, 0, 0.6, 0.0),
        (1.0, 3, 1.0, 0.0),
        (1.0, 0, 1.0, 0.7),
        (3.0, 5, 0.9, 0.75),
        (1.0, 99, 0.8, 0.0),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_probable(temperature, top_k, top_p, min_p):
    n = 4000
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=1)
    sampler = Sampler(config, [[1, 2]], CPU)
    scores = PROBABILITIES.log().expand(n, -1)
    drawn = sampler.choose(scores, sampler.luck(scores, [0] * n)).bincount(minlength=8) / n
    expected = allowed_by_hand(temperature, top_k, top_p, min_p)
    assert (drawn[expected == 0] == 0).all()
    sigma = (expected * (1 - expected) / n) ** 0.5
    assert ((drawn - expected).abs() <= 4 * sigma).all()


def test_without_temperature_the_best_token_is_taken_and_nothing_drawn():
    sampler = Sampler(SamplingConfig(seed=3), [[1]], CPU)
    scores = torch.randn(5, 8).log_softmax(-1)
    assert sampler.luck(scores, [0] * 5) is None
    assert torch.equal(sampler.choose(scores, None), scores.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-3])
def test_a_small_temperature_is_almost_none(temperature):
    sampler = Sampler(SamplingConfig(temperature=temperature), [[1]], CPU)
    scores = torch.rand(50, 8).argsort(-1).float().log_softmax(-1)
    assert torch.equal(sampler.choose(scores, sampler.luck(scores, [0] * 50)), scores.argmax(-1))


def luck(seed, prompts, texts, n=2):
    sampler = Sampler(SamplingConfig(temperature=1, seed=seed), prompts, CPU)
    return torch.stack([sampler.luck(torch.zeros(len(texts), 16), texts) for _ in range(n)])


def test_a_texts_luck_is_its_own():
    alone = luck(0, [[5, 6]], [0])
    assert not torch.equal(alone[0], alone[1])
    # Beside others, in any row, and wherever its prompt stands in the batch.
    assert torch.equal(luck(0, [[1], [5, 6], [7]], [2, 1])[:, 1:], alone)
    # By the seed and the prompt, and by nothing else that draws.
    torch.manual_seed(99)
    assert torch.equal(luck(0, [[5, 6]], [0]), alone)
    others = [luck(1, [[5, 6]], [0]), luck(0, [[5, 7]], [0]), luck(0, [[56]], [0])]
    assert not any(torch.equal(other, alone) for other in others)


# --- where a text ends ---


def text(*stop, most=1000, end=()):
    return GrowingText(BYTES, Ends(dict.fromkeys(end, "eos"), stop, most))


def written(target, tokens):
    """What is visible after each token, up to the end."""
    seen = []
    for token in tokens:
        target.add(token)
        seen.append(target.visible)
        if target.ended_by:
            break
    return seen


@pytest.mark.parametrize(
    ("blanks", "said", "shown"),
    [
        ("", " a", [" ", " a"]),
        (" ", " a", ["", "a"]),
        (" ", "  a", ["", " ", " a"]),
        ("  ", " a", ["", "a"]),
        (" \n", " \na", ["", "", "a"]),
        (" ", "a ", ["a", "a "]),
    ],
)
def test_blanks_that_the_prompt_shows_are_not_shown_again(blanks, said, shown):
    target = GrowingText(BYTES, Ends({}, (), 1000), blanks)
    assert written(target, ids(said)) == shown


def test_a_text_ends_by_its_length():
    target = text(most=3)
    assert written(target, ids("abcdef")) == ["a", "ab", "abc"]
    assert (target.ended_by, target.tokens) == ("length", ids("abc"))


def test_the_end_token_is_no_part_of_the_text():
    target = text(end=ids("c"))
    assert written(target, ids("abcdef")) == ["a", "ab", "ab"]
    assert (target.ended_by, target.tokens) == ("eos", ids("ab"))


def test_half_a_character_is_not_shown():
    assert written(text(), ids("né\N{SNOWMAN}")) == ["n", "n", "né", "né", "né", "né\N{SNOWMAN}"]
    half = text(most=2)
    assert written(half, ids("né")) == ["n", "n"]
    # A byte that belongs to no character becomes visible once something follows it.
    broken = [*ids("a"), ids("é")[0], *ids("b")]
    assert written(text(), broken) == ["a", "a", "a\N{REPLACEMENT CHARACTER}b"]


def test_special_tokens_are_not_shown():
    assert written(text(), [*ids("a"), BYTES.pad_token_id, *ids("b")]) == ["a", "a", "ab"]


def test_a_stop_text_is_held_back_and_cut_off():
    target = text("::", "END")
    assert written(target, ids("a:bENE:E::xx")) == [
        *("a", "a", "a:b", "a:b", "a:b", "a:bEN", "a:bENE", "a:bENE:", "a:bENE:E", "a:bENE:E")
    ]
    assert target.ended_by == "stop"
    assert target.tokens == ids("a:bENE:E::")
    # What was held back and is no stop text belongs to the text in the end.
    for ending in (text("::", most=2), text("::", end=ids("!"))):
        assert written(ending, ids("a:!"))[-1] == "a:"


def test_a_stop_text_counts_before_the_length():
    target = text("b", most=2)
    assert written(target, ids("ab")) == ["a", "a"]
    assert target.ended_by == "stop"


ALPHABET = "ab:\né\N{SNOWMAN}"


@settings(max_examples=200)
@given(
    st.text(ALPHABET, max_size=14),
    st.lists(st.text(ALPHABET, min_size=1, max_size=3), max_size=3, unique=True),
)
def test_texts_end_where_hugging_face_would_end_them(whole, stops):
    target = text(*stops)
    seen = written(target, ids(whole))
    assert all(b.startswith(a) for a, b in pairwise(seen))
    found = [whole.find(stop) for stop in stops if stop in whole]
    if not found:
        assert target.ended_by is None
        assert target.tokens == ids(whole)
        return
    criteria = transformers.StopStringCriteria(BYTES, list(stops))
    rows = [torch.tensor([target.tokens[:n]]) for n in range(1, len(target.tokens) + 1)]
    assert [bool(criteria(row, None)) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert target.ended_by == "stop"
    # The one that was complete first, and the start of the earliest if several were.
    end = min(whole.find(stop) + len(stop) for stop in stops if stop in whole)
    assert seen[-1] == whole[: min(whole[:end].find(s) for s in stops if s in whole[:end])]


@pytest.fixture
def model():
    """What is read of a model to know its ends."""

    def made(end):
        config = transformers.GenerationConfig(eos_token_id=end)
        original = types.SimpleNamespace(generation_config=config)
        return types.SimpleNamespace(tokenizer=BYTES, original_model=original)

    return made


@pytest.mark.parametrize(("end", "own"), [(7, [7]), ([7, 8], [7, 8]), (None, [])])
def test_the_models_own_ends_and_the_tokenizers_count(model, end, own):
    ends = ends_of(model(end), SamplingConfig(stop=("x", "::"), max_new_tokens=9))
    assert ends.ids == dict.fromkeys([*own, BYTES.eos_token_id], "eos")
    assert (ends.texts, ends.most) == (("x", "::"), 9)


def test_a_stop_text_may_be_a_special_token(model):
    # No text shows one, so it is looked for among the tokens.
    ends = ends_of(model(None), SamplingConfig(stop=("<|pad|>", "x", "<|end|>")))
    assert ends.ids == {BYTES.pad_token_id: "stop", BYTES.eos_token_id: "eos"}
    assert ends.texts == ("x",)
    target = GrowingText(BYTES, ends)
    assert written(target, [*ids("ab"), BYTES.pad_token_id, *ids("c")]) == ["a", "ab", "ab"]
    assert (target.ended_by, target.tokens) == ("stop", ids("ab"))
