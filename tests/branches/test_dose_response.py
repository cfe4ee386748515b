import math

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.dose import relative_dose
from saepd.branches.dose_response import dose_response
from saepd.branches.neutral import side_effects
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch
from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.merge.config import MergeConfig
from saepd.metrics.repetition import repetition
from saepd.models.tokens import continuation_ids, prompt_ids

PROMPTS = ["So?", "What is to be done about it?"]
SAMPLING = SamplingConfig(max_new_tokens=10)


@pytest.fixture
def together(random_sae):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    edit = EditLatents(random_sae(hook_name="blocks.2.hook_resid_post"), [1, 4], [2.0, 1.0])
    return [
        Direction("vector", SITE, AddVector(vector), positions="all"),
        Direction("latents", "blocks.2.hook_resid_post", edit, positions="all", coefficient=0.5),
    ]


def log_probs(model, tokens, directions):
    with torch.inference_mode(), apply_all(model, directions):
        return model(torch.tensor([tokens]))[0].double().log_softmax(-1)


def test_each_strength_does_what_its_directions_do_alone(llama, together):
    found = dose_response(llama, PROMPTS, together, [0.5, -2.0], sampling=SAMPLING).points
    assert [point.strength for point in found] == [0, 0.5, -2]
    rows = [prompt_ids(llama.tokenizer, prompt) for prompt in PROMPTS]
    for point in found[1:]:
        scaled = [point.strength * direction for direction in together]
        assert point.relative_dose == pytest.approx(sum(relative_dose(llama, scaled)), rel=1e-5)
        [side] = side_effects(llama, [scaled])
        assert (point.kl, point.perplexity_ratio) == pytest.approx(tuple(side), rel=1e-4)
        kl = 0.0
        for row in rows:
            base, steered = (log_probs(llama, row, ds)[-1] for ds in ([], scaled))
            kl += float((base.exp() * (base - steered)).sum()) / len(rows)
        assert point.effect == pytest.approx(kl, rel=1e-3)
        alone = MergeConfig("weighted", weights=(0.0, 1.0))
        written = generate_batch(llama, PROMPTS, [scaled], alone, SAMPLING)
        assert point.texts == tuple(one.text for one in written)
        assert point.repetition == pytest.approx(
            sum(repetition(one.tokens) for one in written) / len(written)
        )
        nats, n = 0.0, 0
        for row, one in zip(rows, written, strict=True):
            read = log_probs(llama, [*row, *one.tokens], [])
            nats += sum(float(read[len(row) + i - 1, t]) for i, t in enumerate(one.tokens))
            n += len(one.tokens)
        assert point.perplexity == pytest.approx(math.exp(-nats / n), rel=1e-3)


def test_strength_zero_is_the_base(llama, together):
    first, second = dose_response(llama, PROMPTS, together, [0], sampling=SAMPLING).points
    assert (first.relative_dose, first.effect, first.kl, first.perplexity_ratio) == (0, 0, 0, 1)
    assert second.texts == first.texts
    assert second.perplexity == pytest.approx(first.perplexity)
    assert (second.effect, second.kl) == pytest.approx((0, 0), abs=1e-6)


def test_the_effect_is_what_a_wanted_text_gains(llama, together):
    _, point = dose_response(
        llama, PROMPTS, together, [1.5], towards="Yes, all of it", sampling=SAMPLING
    ).points
    scaled = [1.5 * direction for direction in together]
    gains = []
    for prompt in PROMPTS:
        row = prompt_ids(llama.tokenizer, prompt)
        text = continuation_ids(llama.tokenizer, prompt, "Yes, all of it")
        base, steered = (log_probs(llama, row + text, ds) for ds in ([], scaled))
        gains.append(sum(float((steered - base)[len(row) + i - 1, t]) for i, t in enumerate(text)))
    assert point.effect == pytest.approx(sum(gains) / 2, rel=1e-3)


def test_nothing_written_has_no_perplexity(llama, together, monkeypatch):
    ids = llama.tokenizer
    only = torch.full((int(llama.cfg.d_vocab),), -1e4)
    only[ids.eos_token_id] = 0.0
    hook = llama.unembed.register_forward_hook(lambda _module, _args, logits: logits + only)
    try:
        found = dose_response(llama, PROMPTS, together, [1.0], sampling=SAMPLING).points
    finally:
        hook.remove()
    assert [point.texts for point in found] == [("", "")] * 2
    assert all(math.isnan(point.perplexity) for point in found)
    assert [point.repetition for point in found] == [0, 0]


@pytest.mark.parametrize("strengths", [[], [float("nan")], ["2"], 2.0])
def test_strengths_that_are_none_are_refused(llama, together, strengths):
    with pytest.raises(InputError, match="strengths"):
        dose_response(llama, PROMPTS, together, strengths)
