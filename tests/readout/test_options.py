import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL
from tokenizers import normalizers

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.feedback.schema import Item
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout import options as readout
from saepd.readout.options import read_options

SITE = "blocks.2.hook_resid_post"
ITEMS = [
    Item(id="short", prompt="So?", options=("Yes", "No")),
    Item(
        id="long", prompt="And what of this longer one?", options=("Too much", "About right", "x")
    ),
    Item(id="other", prompt="Or this?", options=("a", "b", "c", "d")),
]
STYLES = ("plain", "chat")

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def directions(positions="all"):
    vectors = 2 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    return [
        Direction(f"p{i}", SITE, AddVector(v), positions=positions) for i, v in enumerate(vectors)
    ]


def ids(model, text, **settings):
    return model.tokenizer(text, **settings).input_ids


def close(left, right):
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def log_probs_by_hand(model, tokens, direction):
    """[seq, vocab] of one unpadded row in a plain forward; edits everywhere but at the first."""
    if direction is None:
        return model(torch.tensor([tokens]))[0].log_softmax(-1)
    places = torch.tensor([0.0] + [1.0] * (len(tokens) - 1)).view(1, -1, 1)
    special = torch.tensor([[t in model.tokenizer.all_special_ids for t in tokens]])
    places = places * ~special.unsqueeze(-1)
    point = model.hook_dict[SITE]
    handle = point.register_forward_hook(lambda _m, _a, h: h + places * direction.edit.vector)
    try:
        return model(torch.tensor([tokens]))[0].log_softmax(-1)
    finally:
        handle.remove()


# --- letters ---


@every_architecture
def test_letters_are_read_at_the_end_of_the_prompt(tiny_bridge, architecture):
    model, config = tiny_bridge(architecture), ReadoutConfig("letter", "chat")
    found = read_options(model, ITEMS, directions(), config)
    assert len(found) == len(ITEMS)
    for item, scores in zip(ITEMS, found, strict=True):
        prompt = item_prompt(model, item.prompt, item.options, config)
        opened = prompt.startswith(model.tokenizer.bos_token)
        tokens = ids(model, prompt, add_special_tokens=not opened)
        assert all(f"\n{letter}. " in prompt for letter in "ABCD"[: len(item.options)])
        letters = [ids(model, c, add_special_tokens=False)[0] for c in "ABCD"[: len(item.options)]]
        expected = torch.stack(
            [log_probs_by_hand(model, tokens, d)[-1, letters] for d in (None, *directions())]
        )
        close(scores.scores, expected)
        close(scores.mass, expected.exp().sum(-1))
        assert (scores.scores[0] - scores.scores[1]).abs().max() > 1e-2


def test_letters_that_begin_alike_are_refused(llama):
    # With one token a byte, all of " A", " B" begin with the space.
    with pytest.raises(InputError, match="item 'short': two letters share a token: use the text"):
        read_options(llama, ITEMS, [], ReadoutConfig("letter", "plain"))


def test_letters_that_hold_nothing_are_warned_of(llama, monkeypatch):
    config = ReadoutConfig("letter", "chat")
    plain = read_options(llama, ITEMS[:1], directions(), config)[0]
    for limit, warned in ((0.9 * float(plain.mass.min()), False), (1.0, True)):
        monkeypatch.setattr(readout, "MIN_LETTER_MASS", limit)
        (scores,) = read_options(llama, ITEMS[:1], directions(), config)
        assert bool(scores.warning) == warned
    assert f"item 'short': the letters hold only {float(plain.mass.min()):.1e}" in scores.warning


def test_more_options_than_letters_are_refused(llama):
    many = Item(id="many", prompt="Which?", options=tuple(f"option {i}" for i in range(27)))
    with pytest.raises(InputError, match="27 options have no letters"):
        read_options(llama, [many], [], ReadoutConfig("letter", "chat"))
    assert read_options(llama, [many], [])[0].scores.shape == (1, 27)


# --- texts ---


@every_architecture
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("length_normalised", [False, True])
def test_texts_are_read_as_wholes(tiny_bridge, architecture, style, length_normalised):
    model = tiny_bridge(architecture)
    config = ReadoutConfig("text", style, length_normalised)
    found = read_options(model, ITEMS, directions(), config)
    for item, scores in zip(ITEMS, found, strict=True):
        prompt = item_prompt(model, item.prompt, item.options, config)
        opened = prompt.startswith(model.tokenizer.bos_token)
        before = ids(model, prompt, add_special_tokens=not opened)
        expected, lengths = torch.empty(3, len(item.options)), []
        for column, option in enumerate(item.options):
            text = option if style == "chat" else f" {option}"
            added = ids(model, text, add_special_tokens=False)
            lengths.append(len(added))
            for row, direction in enumerate((None, *directions())):
                log_probs = log_probs_by_hand(model, before + added, direction)
                each = log_probs[len(before) - 1 : -1].gather(1, torch.tensor(added)[:, None])
                expected[row, column] = each.sum()
        close(scores.mass, expected.exp().sum(-1))
        close(scores.log_likelihoods, expected)
        if length_normalised:
            expected = expected / torch.tensor(lengths)
        close(scores.scores, expected)
        assert not scores.warning
        assert (scores.scores[0] - scores.scores[1]).abs().max() > 1e-2


def test_text_in_plain_style_is_the_default(llama):
    for one, other in zip(
        read_options(llama, ITEMS, []),
        read_options(llama, ITEMS, [], ReadoutConfig("text", "plain", False)),
        strict=True,
    ):
        assert torch.equal(one.scores, other.scores)
        assert one.scores.shape[0] == 1


def test_a_prefix_goes_before_every_prompt(llama):
    prefix = "Some examples.\n\n"
    found = read_options(llama, ITEMS, directions(), prefix=prefix)
    for item, scores in zip(ITEMS, found, strict=True):
        text = prefix + item_prompt(llama, item.prompt, item.options, ReadoutConfig())
        before = ids(llama, text)
        for column, option in enumerate(item.options):
            added = ids(llama, f" {option}", add_special_tokens=False)
            log_probs = log_probs_by_hand(llama, before + added, directions()[1])
            each = log_probs[len(before) - 1 : -1].gather(1, torch.tensor(added)[:, None])
            close(scores.scores[2, column], each.sum())


def test_options_of_the_same_tokens_are_refused(llama):
    item = Item(id="case", prompt="So?", options=("yes", "YES", "no"))
    assert read_options(llama, [item], [])[0].scores.shape == (1, 3)
    llama.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    try:
        with pytest.raises(InputError, match="item 'case': two options have the same tokens"):
            read_options(llama, [item], [])
    finally:
        # A normaliser cannot be taken away again, only replaced by one that does nothing.
        llama.tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])
    assert read_options(llama, [item], [])[0].scores.shape == (1, 3)


def test_items_without_options_are_refused(llama):
    free = Item(id="free", prompt="What do you think?", options=())
    with pytest.raises(InputError, match="item 'free' has no options to read: generate"):
        read_options(llama, [ITEMS[0], free], [])


def test_an_impossible_option_is_warned_of(llama, monkeypatch):
    impossible = [(torch.tensor([[-1.0, -float("inf")]]), [1, 1])]
    monkeypatch.setattr(readout, "score_continuations", lambda *args: impossible)
    (scores,) = read_options(llama, ITEMS[:1], [])
    assert "item 'short': an option has probability zero" in scores.warning
    assert scores.log_probs()[0].tolist() == [0.0, -float("inf")]


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"readout": "number"}, "unknown readout 'number': use text or letter"),
        ({"style": "formal"}, "unknown style 'formal': use plain or chat"),
    ],
)
def test_ways_of_reading_that_are_none_are_refused(config, match):
    with pytest.raises(InputError, match=match):
        ReadoutConfig(**config)


def test_a_name_alone_is_no_way_of_reading(llama):
    with pytest.raises(InputError, match="config is 'letter': it must be of class ReadoutConfig"):
        read_options(llama, ITEMS[0], [], "letter")
