"""A gated direction is, for each prompt, the ungated one times what the gate says of it."""

from dataclasses import replace

import pytest
import torch
from branched import OPTIONS, PROMPTS, close
from gated import amount_by_hand, gates
from tiny import ARCHITECTURES, D_MODEL

from saepd.branches.captured import capture_prompts
from saepd.branches.run import branch, score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate, generate_batch, generate_branches
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.uncertainty.sway import sway

SITE = "blocks.1.hook_resid_post"
LATER = "blocks.2.hook_resid_post"
KINDS = ("residual", "latents", "limited", "above", "below", "cosine")
SPECS = ("answer", "all", "prompt", "generated", "last(3)", 'after("::")')

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def dense(gate, positions="answer", hook_name=LATER, seed=0):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(
        f"d{seed}", hook_name, AddVector(vector), positions=positions, coefficient=0.8, gate=gate
    )


def opened(model, prompt, edit, mask_by_hand):
    """The same direction without its gate, at the strength that the gate lets through."""
    amount = amount_by_hand(model, prompt, edit.gate, mask_by_hand)
    return replace(edit, gate=None, coefficient=amount * edit.coefficient)


def test_the_gates_of_these_tests_let_prompts_through_differently(llama, random_sae, mask_by_hand):
    for kind, gate in gates(random_sae).items():
        found = {round(amount_by_hand(llama, p, gate, mask_by_hand), 2) for p in PROMPTS}
        assert len(found) == 2 if gate.rule != "linear" else len(found) > 3, (kind, found)


@every_architecture
@pytest.mark.parametrize("positions", SPECS)
def test_next_tokens_and_scores_are_those_of_each_prompts_own_strength(
    tiny_bridge, random_sae, mask_by_hand, architecture, positions
):
    model = tiny_bridge(architecture)
    edits = [dense(gate, positions, seed=i) for i, gate in enumerate(gates(random_sae).values())]
    own = [[opened(model, p, e, mask_by_hand) for e in edits] for p in PROMPTS]
    expected = torch.cat([branch(model, [p], e) for p, e in zip(PROMPTS, own, strict=True)])
    close(branch(model, PROMPTS, edits), expected)
    close(branch(model, PROMPTS, edits, reference=True), expected)
    captured = capture_prompts(model, PROMPTS, LATER, positions=positions, continuations=OPTIONS)
    at_once = score_continuations(model, PROMPTS, OPTIONS, edits)
    # Twice, since a pack remembers what gates said.
    for again in (
        at_once,
        captured.score_continuations(edits),
        captured.score_continuations(edits),
    ):
        for prompt, options, mine, found in zip(PROMPTS, OPTIONS, own, again, strict=True):
            [alone] = score_continuations(model, [prompt], [options], mine)
            close(found.log_probs, alone.log_probs)
    close(captured.branch(edits), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_may_read_the_site_itself_or_any_block_before_it(
    llama, random_sae, mask_by_hand, kind
):
    # Of this branch, the lower direction is written where the gate of the other reads.
    sites = (SITE, "blocks.1.hook_resid_pre", "blocks.0.attn.hook_out")
    for hook_name in sites:
        gate = gates(random_sae, hook_name)[kind]
        lower = dense(None, "all", "blocks.0.hook_resid_post", seed=4)
        edit = dense(gate, "answer", SITE)
        got = branch(llama, PROMPTS, [edit, [lower, edit]])
        close(got, branch(llama, PROMPTS, [edit, [lower, edit]], reference=True))
        for i, prompt in enumerate(PROMPTS):
            own = opened(llama, prompt, edit, mask_by_hand)
            close(got[i : i + 1], branch(llama, [prompt], [own, [lower, own]]))


def test_edits_of_latents_are_gated_alike(llama, random_sae, mask_by_hand):
    sae = random_sae("standard", d_sae=24, hook_name=SITE)
    gate = gates(random_sae)["latents"]
    edits = [
        Direction(mode, SITE, EditLatents(sae, [3, 5, 7], values, mode), "all", gate=gate)
        for mode, values in (("clamp", [1.0, 2.0, 3.0]), ("ablate", None))
    ]
    got = branch(llama, PROMPTS, edits)
    for i, prompt in enumerate(PROMPTS):
        own = [opened(llama, prompt, edit, mask_by_hand) for edit in edits]
        close(got[i : i + 1], branch(llama, [prompt], own))


def test_other_coefficients_of_a_gated_direction_share_what_it_read(
    llama, random_sae, mask_by_hand
):
    edit = dense(gates(random_sae)["residual"])
    found = sway(llama, PROMPTS[:2], OPTIONS[:2], [edit], [lambda s, _: s.log_softmax(-1)] * 2)
    for prompt, options, one in zip(PROMPTS, OPTIONS, found, strict=False):
        own = opened(llama, prompt, edit, mask_by_hand)
        read = [lambda s, _: s.log_softmax(-1)]
        [alone] = sway(llama, [prompt], [options], [own], read)
        assert one.moved == pytest.approx(alone.moved, abs=1e-4)


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_a_gate_reads_what_runs_anyway(llama, random_sae, positions):
    branch(llama, PROMPTS, [dense(None)])  # The first call of all proves the model.
    runs = []
    handle = llama.original_model.register_forward_pre_hook(lambda *_: runs.append(1))
    edit = dense(gates(random_sae)["residual"], positions)
    try:
        for run in (
            lambda edits: branch(llama, PROMPTS, edits),
            lambda edits: score_continuations(llama, PROMPTS, OPTIONS, edits),
            lambda edits: generate_branches(llama, PROMPTS, edits, SamplingConfig(1)),
        ):
            run([replace(edit, gate=None)])
            n_plain = len(runs)
            run([edit])
            assert len(runs) == 2 * n_plain
            runs.clear()
    finally:
        handle.remove()


# --- text ---


@every_architecture
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_text_is_written_at_the_strength_that_the_prompt_gave(
    tiny_bridge, random_sae, mask_by_hand, architecture, positions
):
    model, sampling = tiny_bridge(architecture), SamplingConfig(max_new_tokens=6)
    chosen = [gates(random_sae)[kind] for kind in ("residual", "latents", "cosine")]
    edits = [(3.0 * dense(gate, positions, seed=i)) for i, gate in enumerate(chosen)]
    merged = generate_batch(model, PROMPTS, edits, None, sampling, trace=True)
    apart = generate_branches(model, PROMPTS, edits, sampling)
    for prompt, text, texts in zip(PROMPTS, merged, apart, strict=True):
        own = [opened(model, prompt, edit, mask_by_hand) for edit in edits]
        [alone] = generate_batch(model, [prompt], own, None, sampling, trace=True)
        assert text.tokens == alone.tokens
        for step, other in zip(text.steps, alone.steps, strict=True):
            assert step.kl == pytest.approx(other.kl, abs=1e-4)
        assert "".join(generate(model, prompt, edits, None, sampling)) == text.text
        [each] = generate_branches(model, [prompt], own, sampling)
        assert [one.tokens for one in texts] == [one.tokens for one in each]


def test_text_on_the_reference_path(llama, random_sae, mask_by_hand, monkeypatch):
    from saepd.branches.writing import generate as writing

    monkeypatch.setattr(writing, "is_proven", lambda *_: False)
    sampling = SamplingConfig(max_new_tokens=4)
    edit = 3.0 * dense(gates(random_sae)["residual"], "all")
    slow = generate_branches(llama, PROMPTS, [edit], sampling)
    monkeypatch.undo()
    fast = generate_branches(llama, PROMPTS, [edit], sampling)
    assert [[t.tokens for t in row] for row in slow] == [[t.tokens for t in row] for row in fast]
