import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL

from saepd.branches.gradients import option_gradients
from saepd.branches.run import score_continuations
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
            assert torch.allclose(log_probs, scores[0], atol=1e-4)
            slope = (scores[1] - scores[2]) / (2 * step)
            assert torch.allclose(gradients @ vector, slope, atol=0.02, rtol=0.02)
            assert slope.abs().max() > 0.05


def test_a_prompt_alone_has_the_gradients_it_has_in_a_batch(llama):
    together = option_gradients(llama, PROMPTS, OPTIONS, SITE)
    for prompt, texts, (_, gradients) in zip(PROMPTS, OPTIONS, together, strict=True):
        [(_, alone)] = option_gradients(llama, [prompt], [texts], SITE)
        assert alone.shape == (len(texts), D_MODEL)
        assert torch.allclose(alone, gradients, atol=1e-4)


def test_what_cannot_be_run_is_refused(llama):
    with pytest.raises(InputError, match="no site"):
        option_gradients(llama, PROMPTS, OPTIONS, "blocks.7.hook_resid_post")
    with pytest.raises(InputError, match="at least one option"):
        option_gradients(llama, PROMPTS, OPTIONS[:1], SITE)
