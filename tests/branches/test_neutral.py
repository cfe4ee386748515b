import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.neutral import NEUTRAL_CONTINUATIONS, NEUTRAL_PROMPTS, side_effects
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector


def hooked_loss(model, direction=None):
    """Mean loss of the continuations, from plain forwards of whole texts."""
    total, n = 0.0, 0
    for prompt, text in zip(NEUTRAL_PROMPTS, NEUTRAL_CONTINUATIONS, strict=True):
        before = model.tokenizer(prompt).input_ids
        both = model.tokenizer(f"{prompt} {text}").input_ids
        hooks = []
        if direction is not None:
            edited = torch.arange(len(both)) >= len(before) - 1
            delta = edited.unsqueeze(-1) * direction
            hooks = [(SITE, lambda h, hook, delta=delta: h + delta)]
        logits = model.run_with_hooks(torch.tensor([both]), fwd_hooks=hooks)
        log_probs = logits[0].log_softmax(-1)
        for i in range(len(before), len(both)):
            total -= float(log_probs[i - 1, both[i]])
            n += 1
    return total / n


def test_the_perplexity_ratio_is_that_of_plain_forwards(llama):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    nothing = Direction("none", SITE, AddVector(0 * vector))
    pushed = Direction("pushed", SITE, AddVector(vector))
    none, some = side_effects(llama, [nothing, pushed])
    assert none.kl == pytest.approx(0, abs=1e-6)
    assert none.perplexity_ratio == pytest.approx(1, abs=1e-5)
    assert some.kl > 0.01
    expected = torch.tensor(hooked_loss(llama, vector) - hooked_loss(llama)).exp()
    assert some.perplexity_ratio == pytest.approx(float(expected), rel=1e-4)
