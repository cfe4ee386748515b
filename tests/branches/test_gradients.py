import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.branches.engine import turns
from saepd.branches.engine.reference import ReferencePack
from saepd.branches.gradients import gradients_at, option_gradients, scores_at
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
            assert torch.allclose(log_probs, scores[:1], atol=1e-4)
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
        assert log_probs.shape == (len(own), len(OPTIONS[row]))
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
        assert torch.allclose(log_probs, at, atol=1e-4)
        slope = (gradients * step).sum((-1, -2))
        assert torch.allclose(slope, (up - down) / 2, atol=2e-3, rtol=0.05)
        assert slope.abs().max() > 0.004


def as_reference(captured, positions):
    """The same prompts, each of whose texts runs alone, without any engine."""
    packs = [
        (indices, ReferencePack([captured.rows[i] for i in indices], pack.texts, 2, (positions,)))
        for indices, pack in captured.packs
    ]
    return CapturedPrompts(captured.model, captured.rows, packs)


# Texts that share their beginnings, among them one that begins another; and single tokens.
MANY = [["so far", "so far off", "so", "some", "no"], ["b c d", "b"]]
SHORT = [["!", "?"], ["!", "?", ":"]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("positions", "options", "n_together"), [("answer", MANY, 1), ("last(3)", SHORT, 3)]
)
def test_gradients_in_one_pass_are_those_of_each_text_alone(
    tiny_bridge, architecture, positions, options, n_together, monkeypatch
):
    model = tiny_bridge(architecture)
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, 1, D_MODEL, generator=generator) for n in (3, 2)]
    captured = capture_prompts(model, PROMPTS, SITE, positions=positions, continuations=options)
    copies = []
    choose = turns.copies_for_least_work

    def choose_and_keep(*args):
        copies[:] = choose(*args)
        return copies

    monkeypatch.setattr(turns, "copies_for_least_work", choose_and_keep)
    found = gradients_at(captured, vectors, [SITE], positions=positions)
    assert max(len(copy.texts) for own in copies for copy in own) == n_together
    monkeypatch.setattr(turns, "_columns_at_once", lambda _: 20)
    slowly = gradients_at(captured, vectors, [SITE], positions=positions)
    right = gradients_at(as_reference(captured, positions), vectors, [SITE], positions=positions)
    for one, in_turns, alone in zip(found, slowly, right, strict=True):
        for got in (one, in_turns):
            assert torch.allclose(got.log_probs, alone.log_probs, atol=1e-4)
            assert torch.allclose(got.gradients, alone.gradients, atol=1e-4)
    assert right[0].gradients.abs().max() > 0.1


def test_a_vector_that_breaks_the_model_leaves_the_others_their_gradients(llama):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 1, D_MODEL, generator=generator)
    captured = capture_prompts(llama, PROMPTS, SITE, continuations=OPTIONS)
    right = gradients_at(captured, [vectors] * 2, [SITE])
    broken = torch.cat([vectors[:1], torch.full((1, 1, D_MODEL), torch.inf), vectors[1:]])
    found = gradients_at(captured, [broken, vectors], [SITE])
    assert found[0].log_probs[1].isnan().all()
    assert torch.allclose(found[0].log_probs[[0, 2, 3]], right[0].log_probs, atol=1e-4)
    assert torch.allclose(found[0].gradients[[0, 2, 3]], right[0].gradients, atol=1e-4)
    assert torch.allclose(found[1].gradients, right[1].gradients, atol=1e-4)


def test_a_prompt_without_vectors_has_no_gradients(llama):
    vectors = [torch.ones(1, 1, D_MODEL), torch.zeros(0, 1, D_MODEL)]
    captured = capture_prompts(llama, PROMPTS, SITE, continuations=OPTIONS)
    for captures in (captured, as_reference(captured, "answer")):
        found = gradients_at(captures, vectors, [SITE])[1]
        assert found.log_probs.shape == (0, len(OPTIONS[1]))
        assert found.gradients.shape == (0, len(OPTIONS[1]), 1, D_MODEL)


def test_prompts_with_many_and_few_vectors_run_as_they_do_alone(llama, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    prompts = [f"Is it {'so ' * i}now" for i in range(6)]
    options = [["yes", "no"], ["a", "b c d", "b c"]] * 3
    vectors = [torch.randn(n, 1, D_MODEL, generator=generator) for n in (1, 7, 0, 2, 1, 12)]
    captured = capture_prompts(llama, prompts, SITE, continuations=options)
    right = scores_at(as_reference(captured, "answer"), vectors, [SITE])
    for budget in (4096, 40, 5):
        monkeypatch.setattr(turns, "token_budget", lambda _, budget=budget: budget)
        for scores, alone in zip(scores_at(captured, vectors, [SITE]), right, strict=True):
            assert torch.allclose(scores, alone, atol=1e-4)
