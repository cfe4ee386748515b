import pytest
import torch
from said import OPTIONS, feedback
from tiny import ARCHITECTURES

from saepd.common.errors import InputError
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs, pair_texts
from saepd.models import batching
from saepd.models.wording import ReadoutConfig

CONTRASTS = ("options", "anchor", "others")


# --- texts ---

BARE = "A survey asked: Is it so?\nMost people answered:"


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize(
    ("answer", "positives"),
    [
        ({"answer": "No"}, [("No", 1.0)]),
        ({"answer": "No", "comment": "It never was"}, [("No. It never was", 1.0)]),
        ({"comment": "Hard to say"}, [("Hard to say", 1.0)]),
        ({"distribution": (0.25, 0, 0.75)}, [("Yes", 0.25), ("Not sure", 0.75)]),
    ],
)
def test_the_texts_of_a_row(llama, answer, positives, contrast):
    texts = pair_texts(llama, feedback(0, **answer), contrast, ReadoutConfig())
    assert texts.positive == [(f"{BARE} {text}", share) for text, share in positives]
    if contrast == "options":
        assert texts.anchor == [(f"{BARE} {option}", 1 / 3) for option in OPTIONS]
    else:
        assert texts.anchor == [(BARE, 1.0)]


def test_free_answers_are_compared_with_the_bare_item_only(llama):
    row = feedback(0, answer="anything", options=())
    texts = pair_texts(llama, row, "anchor", ReadoutConfig())
    assert texts.positive == [(f"{BARE} anything", 1.0)]
    assert texts.anchor == [(BARE, 1.0)]
    with pytest.raises(InputError, match=r"feedback 'r0' has no options .* use contrast anchor"):
        pair_texts(llama, row, "options", ReadoutConfig())


def test_no_space_follows_the_white_space_of_a_chat_template(llama):
    texts = pair_texts(llama, feedback(0), "options", ReadoutConfig(style="chat"))
    bare = pair_texts(llama, feedback(0), "anchor", ReadoutConfig(style="chat")).anchor[0][0]
    assert bare.endswith("assistant\n")
    assert texts.positive == [(f"{bare}Yes", 1.0)]
    assert [text for text, _ in texts.anchor] == [f"{bare}{option}" for option in OPTIONS]


# --- encoding ---

ROWS = [
    feedback(0, answer="Yes"),
    feedback(1, "theirs", answer="No"),
    feedback(2, answer="Yes"),
    feedback(3, "theirs", distribution=(0.2, 0.5, 0.3)),
    feedback(4, answer="No", comment="Surely not, as it seems to me"),
    feedback(5, prompt="And this one, which is a longer question?", answer="Yes"),
    feedback(6, "theirs", prompt="Or?", comment="No idea"),
]


def encoded_alone(model, sae, text, read_at, hook_name):
    """One text, unpadded, one position after the other."""
    tokens = torch.tensor([model.tokenizer(text).input_ids])
    _, cache = model.run_with_cache(tokens, names_filter=[hook_name])
    h = cache[hook_name][0]
    special = set(model.tokenizer.all_special_ids)
    counted = [i for i, token in enumerate(tokens[0].tolist()) if i > 0 and token not in special]
    f = torch.stack([sae.encode(position) for position in h])
    places = [-1] if read_at == "last" else counted
    others = [i for i in range(len(h)) if i not in counted]
    return f[places].mean(0), h[places].mean(0), f[counted] > 0, f[others] > 0


@pytest.mark.parametrize("read_at", ["last", "mean"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("contrast", "block"), [("options", 0), ("anchor", 3), ("others", 1)])
def test_pairs_are_those_of_each_text_alone(
    tiny_bridge, random_sae, monkeypatch, architecture, read_at, contrast, block
):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 200)
    model, hook_name = tiny_bridge(architecture), f"blocks.{block}.hook_resid_post"
    sae = random_sae("jumprelu", hook_name=hook_name)
    config = FeatureConfig(read_at=read_at, contrast=contrast)
    pairs = encode_pairs(model, sae, ROWS, config, ReadoutConfig())
    alone = {}

    def mean(weighted, part):
        for text, _ in weighted:
            if text not in alone:
                alone[text] = encoded_alone(model, sae, text, read_at, hook_name)
        return sum(share * alone[text][part] for text, share in weighted)

    texts = [pair_texts(model, row, contrast, ReadoutConfig()) for row in ROWS]

    def same(got, expected):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)

    same(pairs.positive_latents, torch.stack([mean(t.positive, 0) for t in texts]))
    same(pairs.latents, torch.stack([mean(t.positive, 0) - mean(t.anchor, 0) for t in texts]))
    same(pairs.residuals, torch.stack([mean(t.positive, 1) - mean(t.anchor, 1) for t in texts]))
    same(pairs.density, torch.cat([each[2] for each in alone.values()]).float().mean(0))
    same(pairs.special_density, torch.cat([each[3] for each in alone.values()]).float().mean(0))
    assert pairs.latents.abs().max() > 0.1
    assert 0 < pairs.density.mean() < 1
    assert pairs.rows == ROWS
    assert pairs.positive_texts[3] == f"{BARE} No"


@pytest.mark.parametrize(
    ("contrast", "n_texts"),
    [
        # Three options of two questions, one with a comment; and a comment and three options.
        ("options", 3 + 3 + 1 + 1 + 3),
        # Three bare questions; their answers, among them a distribution over all three options.
        ("anchor", 3 + 3 + 1 + 1 + 1),
    ],
)
def test_equal_texts_are_encoded_once(llama, random_sae, contrast, n_texts):
    told = []

    def report(*step):
        told.append(step)

    config = FeatureConfig(contrast=contrast)
    pairs = encode_pairs(llama, random_sae(), ROWS, config, ReadoutConfig(), report)
    assert told[-1] == ("encoding feedback", n_texts, n_texts)
    assert torch.equal(pairs.latents[0], pairs.latents[2])
    assert not torch.equal(pairs.latents[0], pairs.latents[1])


def test_a_distribution_is_the_weighted_mean_of_its_answers(llama, random_sae):
    rows = [
        feedback(0, answer="Yes"),
        feedback(1, answer="No"),
        feedback(2, answer="Not sure"),
        feedback(3, distribution=(0.2, 0.5, 0.3)),
        feedback(4, distribution=(1, 0, 0)),
    ]
    pairs = encode_pairs(
        llama, random_sae(), rows, FeatureConfig(contrast="anchor"), ReadoutConfig()
    )
    shares = torch.tensor([0.2, 0.5, 0.3])
    for values in (pairs.latents, pairs.residuals, pairs.positive_latents):
        torch.testing.assert_close(values[3], shares @ values[:3], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(values[4], values[0], atol=1e-5, rtol=1e-4)
        assert (values[0] - values[1]).abs().max() > 0.1


def test_feedback_that_cannot_be_encoded_is_refused(llama, random_sae):
    for rows, match in [
        ([], "there is no feedback"),
        ([feedback(0, prompt="long " * 60)], "tokens, but the model's context holds 256"),
    ]:
        with pytest.raises(InputError, match=match):
            encode_pairs(
                llama, random_sae(), rows, FeatureConfig(contrast="anchor"), ReadoutConfig()
            )


def test_an_sae_that_does_not_fit_is_refused_before_anything_runs(llama, random_sae):
    with pytest.raises(InputError, match="width"):
        encode_pairs(llama, random_sae(d_in=64), ROWS, FeatureConfig(), ReadoutConfig())
    with pytest.raises(InputError, match="an SAE is needed, as load_sae returns it, not 'folder'"):
        encode_pairs(llama, "folder", ROWS, FeatureConfig(), ReadoutConfig())
    with pytest.raises(InputError, match="it must be of class FeatureConfig"):
        encode_pairs(llama, random_sae(), ROWS, ReadoutConfig(), FeatureConfig())


def test_activations_that_overflow_are_not_averaged(llama, random_sae):
    handle = llama.blocks[1].hook_out.register_forward_hook(lambda _m, _a, h: h * float("inf"))
    try:
        with pytest.raises(InputError, match=r"hook_resid_post are not finite: .* or float32"):
            encode_pairs(llama, random_sae(), ROWS, FeatureConfig(), ReadoutConfig())
    finally:
        handle.remove()
