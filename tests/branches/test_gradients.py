import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL

from saepd.branches.gradients import gradients_at, option_gradients, scores_at
from saepd.branches.run import capture_prompts, score_continuations
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector

SITE = "blocks.1.hook_resid_post"
PROMPTS = ["Is it so", "What is it::"]
OPTIONS = [["a", "no", "b c"], ["b", "no"]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("positions", ["answer", "last(2)", "all"])
def test_gradients_are_what_small_directions_do(tiny_bridge, architecture, positions):
    model = tiny_bridge(architecture)
    found = option_gradients(model, PROMPTS, OPTIONS, SITE, positions=positions)
    step = 1e-2
    for seed in range(3):
        vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
        pushed = [
            Direction("d", SITE, AddVector(sign * step * vector), positions=positions)
            for sign in (1, -1)
        ]
        scored = score_continuations(model, PROMPTS, OPTIONS, pushed)
        for (log_probs, gradients), (scores, _) in zip(found, scored, strict=True):
            assert torch.allclose(log_probs, scores[[0, 0]], atol=1e-4)
            slope = (scores[1] - scores[2]) / (2 * step)
            assert torch.allclose(gradients[0, :, 0] @ vector, slope, atol=0.02, rtol=0.02)
            assert slope.abs().max() > 0.05


def test_a_prompt_alone_has_the_gradients_it_has_in_a_batch(llama):
    together = option_gradients(llama, PROMPTS, OPTIONS, SITE)
    for prompt, texts, (_, gradients) in zip(PROMPTS, OPTIONS, together, strict=True):
        [(_, alone)] = option_gradients(llama, [prompt], [texts], SITE)
        assert alone.shape == (1, len(texts), 1, D_MODEL)
        assert torch.allclose(alone, gradients, atol=1e-4)


def test_what_cannot_be_run_is_refused(llama):
    with pytest.raises(InputError, match="no site"):
        option_gradients(llama, PROMPTS, OPTIONS, "blocks.7.hook_resid_post")
    with pytest.raises(InputError, match="at least one option"):
        option_gradients(llama, PROMPTS, OPTIONS[:1], SITE)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_gradients_at_a_vector_are_what_a_little_more_of_it_does(
    tiny_bridge, architecture, positions
):
    model = tiny_bridge(architecture)
    sites = ["blocks.0.hook_resid_post", SITE]
    generator = torch.Generator().manual_seed(0)
    n_vectors = [9, 2]
    vectors = [torch.randn(n, 2, D_MODEL, generator=generator) for n in n_vectors]
    captured = capture_prompts(model, PROMPTS, sites[0], positions=positions, continuations=OPTIONS)
    found = gradients_at(captured, vectors, sites, positions=positions)
    scored = scores_at(captured, vectors, sites, positions=positions)
    step = 2e-2 * torch.randn(2, D_MODEL, generator=generator)
    for row, own in enumerate(vectors):
        log_probs, gradients = found[row]
        assert log_probs.shape == (1 + len(own), len(OPTIONS[row]))
        assert torch.allclose(scored[row], log_probs, atol=1e-4)
        branches = [
            [
                Direction("d", site, AddVector(v), positions=positions)
                for site, v in zip(sites, vector + sign * step, strict=True)
            ]
            for vector in own
            for sign in (0, 1, -1)
        ]
        [(scores, _)] = score_continuations(model, [PROMPTS[row]], [OPTIONS[row]], branches)
        at, up, down = scores[1:].unflatten(0, (-1, 3)).unbind(1)
        assert torch.allclose(log_probs, torch.cat([scores[:1], at]), atol=1e-4)
        slope = (gradients * step).sum((-1, -2))
        assert torch.allclose(slope, (up - down) / 2, atol=2e-3, rtol=0.05)
        assert slope.abs().max() > 0.004
