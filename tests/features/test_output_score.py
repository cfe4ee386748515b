import math

import pytest
import torch
from tiny import N_LAYERS, SITE

from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.branches.run import branch
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.features.lens import logit_lens
from saepd.features.output_score import output_scores

LAST_SITE = f"blocks.{N_LAYERS - 1}.hook_resid_post"
LATENTS = torch.tensor([5, 0, 33])


def with_row(sae, latent, row):
    with torch.no_grad():
        sae.W_dec[latent] = row
    return sae


def scores_by_hand(model, sae, hook_name, latents, amplitude, prompts):
    """Arad et al.'s score with one hooked forward for each latent and prompt."""
    norms = []
    for prompt in prompts:
        tokens = torch.tensor([model.tokenizer(prompt).input_ids])
        _, cache = model.run_with_cache(tokens, names_filter=[hook_name])
        norms.append(float(cache[hook_name][0, -1].norm()))
    scores = []
    for latent in latents.tolist():
        row = sae.W_dec[latent]
        push = amplitude * sum(norms) / len(norms) * row / row.norm()
        promoted = set(logit_lens(model, sae, torch.tensor([latent]))[0].tolist())
        total = 0.0
        for prompt in prompts:
            steered = branch(
                model, [prompt], [Direction("push", hook_name, AddVector(push))], reference=True
            )[0]
            for sign, log_probs in ((-1, steered[0]), (1, steered[1])):
                order = log_probs.argsort(descending=True).tolist()
                rank = min(order.index(token) for token in promoted)
                p = max(math.exp(log_probs[token]) for token in promoted)
                total += sign * (1 - rank / len(order)) * p
        scores.append(total / len(prompts))
    return torch.tensor(scores)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("amplitude", [1.0, -0.5])
def test_output_scores_by_hand(tiny_bridge, random_sae, architecture, amplitude):
    model, sae = tiny_bridge(architecture), random_sae()
    prompts = ["The boats", "Somewhat longer, this one"]
    settings = {"amplitude": amplitude, "prompts": prompts}
    found = output_scores(model, sae, LATENTS, **settings)
    expected = scores_by_hand(model, sae, SITE, LATENTS, **settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 1e-3


def test_a_latent_that_writes_a_token_has_a_score_of_its_sign(llama, random_sae):
    token = 70
    sae, early = (
        with_row(random_sae(hook_name=name), 5, llama.W_U[:, token])
        for name in (LAST_SITE, "blocks.0.hook_resid_pre")
    )
    assert logit_lens(llama, sae, torch.tensor([5]))[0, 0] == token
    promoted, opposed = (output_scores(llama, sae, torch.tensor([5]), amplitude=a) for a in (1, -1))
    assert promoted > 0.05
    assert opposed < -0.001
    # Far from the end the blocks in between make something else of it.
    assert output_scores(llama, early, torch.tensor([5])) < promoted


def test_a_latent_that_is_not_pushed_has_no_score(llama, random_sae):
    scores = output_scores(llama, random_sae(), LATENTS, amplitude=0.0)
    torch.testing.assert_close(scores, torch.zeros(3), atol=1e-6, rtol=0)


def test_neutral_prompts_are_several_texts():
    assert len(set(NEUTRAL_PROMPTS)) == len(NEUTRAL_PROMPTS) >= 5
