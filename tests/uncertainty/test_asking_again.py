import math

import numpy as np
import pytest
from tiny import ARCHITECTURES

from saepd.branches.run import score_continuations
from saepd.branches.writing.trace import Generated
from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.models.prompts import item_prompt, letters, naming_answer
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options
from saepd.uncertainty import asking_again as iterative_prompting
from saepd.uncertainty.asking_again import (
    FREE_TEXT,
    Repeated,
    ask_again,
    iterate_over_options,
    iterate_over_samples,
    uncertainty_over_options,
)
from saepd.uncertainty.config import EpistemicConfig
from saepd.uncertainty.epistemic import epistemic_uncertainty

ITEMS = [
    Item(id="a", prompt="Should buses be free?", options=("Yes", "No", "Not sure")),
    Item(id="b", prompt="And trams?", options=("Yes", "Yes, at night")),
]


def test_the_answer_is_named_after_the_question_and_before_what_asks_for_one():
    survey = "A survey asked: Why? Say so\nMost people answered:"
    assert naming_answer(survey, "No") == (
        "A survey asked: Why? Say so\nOne answer to this question is: No\nMost people answered:"
    )
    assert naming_answer("Is it? Answer:", " Yes ") == (
        "Is it? One answer to this question is: Yes\nAnswer:"
    )
    assert (
        naming_answer("What is it?", "A hat") == "What is it? One answer to this question is: A hat"
    )
    with pytest.raises(InputError, match="must both have some text"):
        naming_answer("What is it?", " ")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("readout", ["text", "letter"])
@pytest.mark.parametrize("style", ["plain", "chat"])
def test_sharing_the_question_changes_no_score(tiny_bridge, architecture, readout, style):
    model, config = tiny_bridge(architecture), ReadoutConfig(readout, style)
    found = iterate_over_options(model, ITEMS, config)
    for item, own in zip(ITEMS, found, strict=True):
        texts = letters(len(item.options)) if readout == "letter" else item.options
        asked = [item_prompt(model, item.prompt, item.options, config)]
        asked += [
            item_prompt(model, item.prompt, item.options, config, named=o) for o in item.options
        ]
        rows = score_continuations(model, asked, [texts] * len(asked), [])
        apart = np.stack([row.log_probs[0].numpy() for row in rows])
        np.testing.assert_allclose(np.vstack([own.first, own.second]), apart, atol=2e-4)


def test_the_plain_answers_are_those_of_the_readout(llama):
    read = read_options(llama, ITEMS, [])
    for own, scores in zip(iterate_over_options(llama, ITEMS), read, strict=True):
        np.testing.assert_allclose(own.first, scores.scores[0].numpy(), atol=1e-4)
        assert own.second.shape == (len(own.first),) * 2


def test_uncertainty_of_models_that_copy_or_ignore_what_is_named():
    half = np.log([0.5, 0.5])
    with np.errstate(divide="ignore"):
        copied = Repeated(half, np.log(np.eye(2)))
    assert uncertainty_over_options(copied) == pytest.approx(math.log(2))
    assert uncertainty_over_options(Repeated(half, np.stack([half, half]))) == pytest.approx(0)


def test_scores_far_below_zero_and_offsets():
    mu1, mu2 = np.array([0.5, 0.5]), np.array([[0.8, 0.2], [0.4, 0.6]])
    far = np.array([-900.0, -1200.0])
    repeated = Repeated(np.log(mu1) + far, np.log(mu2) + far)
    import torch

    found = uncertainty_over_options(repeated, torch.from_numpy(far))
    assert found == pytest.approx(epistemic_uncertainty(mu1, mu2))


def test_options_without_any_mass_have_no_uncertainty():
    nothing = np.full(2, -np.inf)
    assert math.isnan(uncertainty_over_options(Repeated(nothing, np.zeros((2, 2)))))
    assert math.isnan(uncertainty_over_options(Repeated(np.zeros(2), np.stack([nothing] * 2))))


def test_prompts_must_begin_with_their_question(llama):
    with pytest.raises(InputError, match="begin all of them with the question"):
        ask_again(llama, ["Why is it so?"], [["One answer is No. Why is it so?"]], [["Yes"]])
    with pytest.raises(InputError, match="'free' has no options"):
        iterate_over_options(llama, [Item(id="free", prompt="Why?", options=())])


# --- free text ---


def named(prompts):
    return lambda index, answer: naming_answer(prompts[index], answer)


def writes(monkeypatch, *texts):
    """The model writes these texts, one a sample."""
    written, seeds = iter(texts), []

    def generate(_model, prompts, directions, sampling):
        assert directions == [] and sampling.stop == ("\n",)
        seeds.append(sampling.seed)
        text = next(written)
        return [[Generated(text, (), "end", ())] for _ in prompts]

    monkeypatch.setattr(iterative_prompting, "generate_branches", generate)
    return seeds


def test_the_papers_estimate_from_samples(llama, monkeypatch):
    seeds = writes(monkeypatch, "red", "", "red", " blue \n")
    prompts = ["What colour is it? Answer:"]
    [found] = iterate_over_samples(llama, prompts, named(prompts), EpistemicConfig(n_samples=4))
    assert seeds == [0, 1, 2, 3]
    assert found.responses == ("red", "blue") and found.centre_of == (0, 1)
    assert found.n_empty == 1
    asked = [prompts[0], *(naming_answer(prompts[0], text) for text in found.responses)]
    rows = score_continuations(llama, asked, [found.responses] * 3, [])
    shares = [row.log_probs[0].double().softmax(-1).numpy() for row in rows]
    expected = epistemic_uncertainty(shares[0], np.stack(shares[1:]))
    assert found.uncertainty == pytest.approx(expected, abs=1e-4)


def test_samples_that_agree_and_samples_that_are_empty(llama, monkeypatch):
    prompts, two = ["What is it? Answer:"], EpistemicConfig(n_samples=2)
    writes(monkeypatch, "red", "red")
    [found] = iterate_over_samples(llama, prompts, named(prompts), two)
    assert (found.uncertainty, found.n_empty) == (0.0, 0)
    writes(monkeypatch, " ", "")
    [found] = iterate_over_samples(llama, prompts, named(prompts), two)
    assert math.isnan(found.uncertainty) and (found.responses, found.n_empty) == ((), 2)


def test_a_real_model_is_sampled_with_different_luck(llama):
    prompts = ["What is it? Answer:", "Why? Answer:"]
    config = EpistemicConfig(n_samples=3)
    found = iterate_over_samples(llama, prompts, named(prompts), config, FREE_TEXT)
    again = iterate_over_samples(llama, prompts, named(prompts), config, FREE_TEXT)
    for one, other in zip(found, again, strict=True):
        assert one.responses == other.responses
        assert len(one.responses) > 1
        assert 0 <= one.uncertainty <= math.log(len(one.responses)) + 1e-9
