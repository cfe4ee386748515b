import pytest
import torch
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.features.encode import Pairs
from saepd.features.evidence import Excited, explain
from saepd.features.lens import logit_lens
from saepd.features.output_score import output_scores
from saepd.features.select import Features
from saepd.feedback.schema import Feedback


def feedback(i, name):
    return Feedback(id=f"r{i}", perspective=name, prompt="So?", options=("Yes", "No"), answer="No")


@pytest.fixture
def pairs():
    names = ["ours"] * 4 + ["theirs"] * 3
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(7, 48, generator=generator) + 0.1
    positive[:, 7] = torch.tensor([0.0, 3, 0, 5, 4, 0, 1])
    positive[:, 8] = torch.tensor([0.0, 0, 0, 2, 0, 0, 0])
    return Pairs(
        rows=[feedback(i, name) for i, name in enumerate(names)],
        # The strongest two of latent 7 are the same text.
        positive_texts=["a", "b", "c", "d", "d", "e", "f"],
        latents=torch.randn(7, 48, generator=generator) + torch.linspace(-2, 2, 48),
        residuals=torch.zeros(7, D_MODEL),
        density=torch.rand(48, generator=generator),
        special_density=torch.zeros(48),
        positive_latents=positive,
    )


@pytest.fixture
def features(pairs):
    latents = torch.tensor([7, 8, 20])
    return Features(
        perspective="theirs",
        latents=latents,
        effect=torch.tensor([0.9, 0.8, -0.7]),
        value=torch.tensor([1.0, 2.0, -3.0]),
        stability=torch.tensor([1.0, 0.75, 0.5]),
        density=pairs.density[latents],
        n_candidates=40,
        n_unstable=0,
    )


def test_evidence_tells_each_latent_what_it_is(llama, random_sae, pairs, features):
    sae = random_sae()
    evidence = explain(llama, sae, pairs, features, n_contexts=2)
    assert [e.latent for e in evidence] == [7, 8, 20]
    assert {e.perspective for e in evidence} == {"theirs"}
    assert [e.stability for e in evidence] == [1.0, 0.75, 0.5]
    tokens = logit_lens(llama, sae, features.latents)
    scores = output_scores(llama, sae, features.latents)
    for i, e in enumerate(evidence):
        assert e.tokens == [llama.tokenizer.decode([token]) for token in tokens[i]]
        assert len(e.tokens) == 10
        assert e.density == pytest.approx(float(pairs.density[e.latent]))
        assert e.output_score == pytest.approx(float(scores[i]), abs=1e-6)
        assert list(e.effect) == ["ours", "theirs"]
        for name, rows in (("ours", range(4)), ("theirs", range(4, 7))):
            values = pairs.latents[list(rows), e.latent].numpy()
            expected = values.mean() / values.std(ddof=1)
            assert e.effect[name] == pytest.approx(expected, abs=1e-3)


def test_contexts_are_the_texts_that_excite_a_latent_most(llama, random_sae, pairs, features):
    evidence = explain(llama, random_sae(), pairs, features)
    both = ("ours", "theirs")
    assert evidence[0].contexts == [
        Excited("d", 5.0, both),
        Excited("b", 3.0, ("ours",)),
        Excited("f", 1.0, ("theirs",)),
    ]
    # Where it does not fire there is nothing to show.
    assert evidence[1].contexts == [Excited("d", 2.0, both)]
    two = explain(llama, random_sae(), pairs, features, n=1, n_contexts=2)
    assert two[0].contexts == evidence[0].contexts[:2]


@pytest.mark.parametrize("n", [0, -1, 2.5, "all"])
def test_a_number_of_latents_that_is_none_is_refused(llama, random_sae, pairs, features, n):
    with pytest.raises(InputError, match="the number of latents to explain is"):
        explain(llama, random_sae(), pairs, features, n)


def test_the_sae_must_be_that_of_the_feedback(llama, random_sae, pairs, features):
    with pytest.raises(InputError, match="encoded in 48 latents, and this SAE has 32"):
        explain(llama, random_sae(d_sae=32), pairs, features)
