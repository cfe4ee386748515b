"""The slow tier: the packaged model and the shipped SAEs, as a user meets them."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

import saepd
from saepd.cli.demo import DEMO_METHODS
from saepd.directions.applying import apply_all
from saepd.directions.edits import EditLatents
from saepd.evaluation.config import DrawConfig, EvaluationConfig
from saepd.evaluation.run import evaluate
from saepd.models.identity import weights_fingerprint
from saepd.models.packaged import DEFAULT_MODEL, default_gguf
from saepd.models.prompts import item_prompt, naming_answer
from saepd.saes.load import sae_hook_name
from saepd.tasks.loading import load_task
from saepd.uncertainty.asking_again import iterate_over_options, uncertainty_over_options
from saepd.uncertainty.config import EpistemicConfig

pytestmark = pytest.mark.slow

PROMPTS = [
    "A survey asked: Should libraries open on Sundays?\nMost people answered:",
    "Every spring the council publishes what it spent in the year before, on roads, on schools "
    "and on the swimming pool, and every spring the same three people read all of it. This year",
    "Bread",
]


@pytest.fixture(scope="module")
def model():
    try:
        default_gguf()
    except saepd.InputError as error:
        pytest.skip(str(error))
    return saepd.load_model()


@pytest.fixture(scope="module")
def sae(model):
    return saepd.load_sae(15, model=model)


def directions(sae, positions, modes=("add", "scale", "clamp", "ablate")):
    latents = torch.arange(40)
    return [
        saepd.Direction(
            f"{mode} {positions}",
            sae_hook_name(sae),
            EditLatents(sae, latents, None if mode == "ablate" else [3.0] * 40, mode),
            positions=positions,
        )
        for mode in modes
    ]


def test_the_default_model_is_named_and_frozen(model):
    assert model.cfg.model_name == DEFAULT_MODEL
    assert not any(p.requires_grad for p in model.original_model.parameters())
    assert len(weights_fingerprint(model)) == 16


@pytest.mark.parametrize("block", [10, 15, 20])
def test_shipped_saes_fit(model, block):
    sae = saepd.load_sae(block, model=model)
    assert sae_hook_name(sae) == f"blocks.{block}.hook_resid_post"
    assert sae.cfg.metadata.probe_explained_variance > 0.7


@pytest.mark.parametrize("positions", ["answer", "all", "last(3)", 'after("e")'])
def test_captured_branches_equal_hooked_ones(model, sae, positions):
    steered = directions(sae, positions)
    prompts = PROMPTS[:2] if "after" in positions else PROMPTS
    captured = saepd.branch(model, prompts, steered)
    hooked = saepd.branch(model, prompts, steered, reference=True)
    torch.testing.assert_close(captured, hooked, atol=1e-4, rtol=0)
    assert float((captured[:, 1:] - captured[:, :1]).abs().max()) > 1e-2
    alone = torch.cat([saepd.branch(model, [prompt], steered) for prompt in prompts])
    torch.testing.assert_close(captured, alone, atol=1e-4, rtol=0)


def test_option_texts_score_as_in_one_uncached_pass(model, sae):
    prompt, options = PROMPTS[0], ["Yes, every week", "No"]
    [direction] = directions(sae, "generated", modes=("add",))
    [(scores, lengths)] = saepd.score_continuations(model, [prompt], [options], [direction])
    before = model.tokenizer(prompt).input_ids
    for column, option in enumerate(options):
        tokens = torch.tensor([model.tokenizer(f"{prompt} {option}").input_ids])
        added = tokens[0, len(before) :]
        assert lengths[column] == len(added)
        with torch.inference_mode():
            log_probs = model.original_model(input_ids=tokens).logits[0].log_softmax(-1)
        expected = log_probs[len(before) - 1 : -1].gather(1, added.unsqueeze(1)).sum()
        torch.testing.assert_close(scores[0, column], expected, atol=1e-3, rtol=0)


def test_an_exception_inside_apply_leaves_the_model_as_it_was(model, sae):
    tokens = torch.tensor([model.tokenizer(PROMPTS[0]).input_ids])
    [direction] = directions(sae, "all", modes=("add",))
    with torch.inference_mode():
        before = model(tokens)
        steered = []
        with pytest.raises(ZeroDivisionError), direction.apply(model):
            steered.append(model(tokens) / (1 // len(steered)))
        with direction.apply(model):
            steered.append(model(tokens))
        after = model(tokens)
    assert torch.equal(before, after)
    assert not torch.equal(before, steered[-1])


def test_generation_is_steered_beyond_the_first_token(model, sae):
    [direction] = directions(sae, "generated", modes=("add",))
    tokens = torch.tensor([model.tokenizer(PROMPTS[1]).input_ids])
    plain = model.generate(tokens, max_new_tokens=6, do_sample=False, verbose=False)
    with direction.scaled(20.0).apply(model):
        cached = model.generate(tokens, max_new_tokens=6, do_sample=False, verbose=False)
        whole = model.generate(
            tokens, max_new_tokens=6, do_sample=False, verbose=False, use_past_kv_cache=False
        )
    assert torch.equal(cached, whole)
    # The first generated token is read at the prompt's last position, which is not edited.
    assert torch.equal(cached[:, : tokens.shape[1] + 1], plain[:, : tokens.shape[1] + 1])
    assert not torch.equal(cached, plain)


def test_several_directions_at_one_site_add_up(model, sae):
    a, b = directions(sae, "answer", modes=("add", "clamp"))
    together = saepd.branch(model, PROMPTS[:1], [[a, b]])[0, 1]
    tokens = torch.tensor([model.tokenizer(PROMPTS[0]).input_ids])
    with torch.inference_mode(), apply_all(model, [a, b]):
        expected = model(tokens)[0, -1].log_softmax(-1)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


def test_an_evaluation_depends_on_the_seed_and_on_the_weights(model, sae, tmp_path):
    whole = load_task("gss")
    known = {item.id for item in [i for i in whole.items if i.topic == "abortion"][:7]}
    task = replace(
        whole,
        items=tuple(item for item in whole.items if item.id in known),
        feedback=tuple([row for row in whole.feedback if row.item in known][:1500]),
    )

    def distances(seed, folder):
        config = EvaluationConfig(DrawConfig(n_feedback=8, draws=1, seed=seed), few_shot_tokens=128)
        summary = evaluate(model, sae, task, config, tmp_path / folder, DEMO_METHODS)
        rows = summary["rows"]
        return {row["method"]: row["js_distance"] for row in rows if row["perspective"] == "all"}

    first, again, other = distances(0, "first"), distances(0, "again"), distances(1, "other")
    assert first == again
    assert first["train-mean"] != other["train-mean"]
    weight = model.original_model.get_input_embeddings().weight
    kept = weight.clone()
    try:
        with torch.no_grad():
            weight += 0.05 * torch.randn(
                weight.shape, generator=torch.Generator().manual_seed(0)
            ).to(weight)
        changed = distances(0, "changed")
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    for method in first:
        assert (changed[method] == first[method]) == (method in ("uniform", "train-mean")), method


def test_iterative_prompting_is_what_separate_prompts_say_and_takes_seconds(model):
    items = [item for i, item in enumerate(saepd.survey_items()) if i % 5 == 0]
    began = time.perf_counter()
    found = iterate_over_options(model, items)
    # 200 questions in ten minutes on two cores.
    assert time.perf_counter() - began < 3 * len(items)
    for item, own in zip(items, found, strict=True):
        plain = item_prompt(model, item.prompt, item.options, saepd.ReadoutConfig())
        named = [naming_answer(plain, option) for option in item.options]
        rows = saepd.score_continuations(model, named, [item.options] * len(named), [])
        apart = torch.stack([row.log_probs[0] for row in rows]).double().numpy()
        assert abs(own.second - apart).max() < 1e-3
        assert 0 <= uncertainty_over_options(own) <= math.log(len(item.options))


def test_items_are_assessed_with_options_and_without(model, sae):
    items = [saepd.survey_items()[0], saepd.survey_items()[-1]]
    items.append(saepd.Item(id="free", prompt="What is missing in this town?", options=()))
    steered = directions(sae, "answer", modes=("add", "clamp"))
    config = saepd.AssessmentConfig(epistemic=EpistemicConfig(n_samples=2), max_new_tokens=8)
    found = saepd.assess(model, items, steered, None, config)
    for one in found:
        assert all(value >= 0 for value in one.scores.values())
    assert found[-1].answers
    ranked = saepd.triage_items(found)
    assert sorted(one.assessment.item for one in ranked) == sorted(item.id for item in items)
