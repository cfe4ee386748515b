"""Edits of a transcoder's latents: read at one site, written at another, against plain hooks."""

from itertools import takewhile

import pytest
import torch
from branched import close
from tiny import ARCHITECTURES, D_MODEL, N_LAYERS

from saepd.branches.captured import capture_prompts
from saepd.branches.dose import relative_dose
from saepd.branches.run import branch, score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.errors import InputError
from saepd.directions.applying import apply_all
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct
from saepd.directions.gate import Gate
from saepd.fit.by_hand import steer
from saepd.saes.abilities import TRANSCODERS, abilities

PROMPTS = (
    "Is it so? Say:: yes",
    "a::b",
    "A rather longer question, for the sake of what is shared before the mark::so",
)
OPTIONS = [["yes", "no"], ["b", "c d", "very much so"], ["one two", "one three"]]
MODES = ("add", "scale", "clamp", "ablate")
SPECS = ("answer", "all", "generated", 'after("::")')
LATENTS, VALUES = torch.arange(0, 24, 2), torch.linspace(-1.5, 2.5, 12)
OUT = "hook_mlp_out"


@pytest.fixture
def transcoder(random_sae):
    """Factory of transcoders with random weights, a skip connection's among them."""

    def make(architecture="transcoder", block=1, read="mlp.hook_in", **settings):
        sae = random_sae(
            architecture,
            d_sae=24,
            d_out=D_MODEL,
            hook_name=f"blocks.{block}.{read}",
            apply_b_dec_to_input=False,
            **settings,
        )
        sae.cfg.metadata.hook_name_out = f"blocks.{block}.{OUT}"
        return sae

    return make


def direction(sae, mode="clamp", positions="answer", **settings):
    edit = EditLatents(sae, LATENTS, None if mode == "ablate" else VALUES, mode)
    site = sae.cfg.metadata.hook_name_out
    return Direction(f"{mode} {positions}", site, edit, positions, **settings)


def difference_by_hand(sae, x, mode):
    """What the transcoder gives with edited latents, less what it gives: the whole of both."""
    f = sae.encode(x)
    edited = f.clone()
    for latent, value in zip(LATENTS.tolist(), VALUES.tolist(), strict=True):
        old = f[..., latent]
        new = {"add": old + value, "scale": old * value, "clamp": 0 * old + value}
        edited[..., latent] = new.get(mode, 0 * old)
    skip = x @ sae.W_skip.T if hasattr(sae, "W_skip") else 0
    return (edited @ sae.W_dec + sae.b_dec + skip) - sae(x)


def by_hand(model, sae, mode, mask, tokens, coefficient=1.0):
    """Log-probs of every next token of one text, alone, uncached, with the bridge's own hooks."""
    held = {}

    def keep(x, hook):
        held["x"] = x

    def write(y, hook):
        places = torch.tensor([mask]).unsqueeze(-1).float()
        return y + coefficient * places * difference_by_hand(sae, held["x"], mode)

    metadata = sae.cfg.metadata
    hooks = [(metadata.hook_name, keep), (metadata.hook_name_out, write)]
    with torch.inference_mode():
        logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=hooks)
    return logits[0].log_softmax(-1)


def ids_of(model, text):
    return model.tokenizer(text).input_ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", TRANSCODERS)
def test_branches_write_what_the_whole_transcoder_would(
    tiny_bridge, transcoder, mask_by_hand, architecture, kind
):
    model = tiny_bridge(architecture)
    # The last block's MLP, too, of which the engine else runs no more than is read.
    block = N_LAYERS - 1 if architecture == "qwen2" else 1
    sae = transcoder(
        kind, block, "ln2.hook_normalized" if architecture == "gpt2" else "mlp.hook_in"
    )
    # Each mode under two specs, all in one padded pass.
    pairs = [(mode, SPECS[(i + s) % 4]) for i, mode in enumerate(MODES) for s in (0, 1)]
    directions = [direction(sae, mode, spec, coefficient=0.8) for mode, spec in pairs]
    got = branch(model, PROMPTS, directions)
    close(got, branch(model, PROMPTS, directions, reference=True))
    scores = score_continuations(model, PROMPTS, OPTIONS, directions)
    for row, prompt in enumerate(PROMPTS):
        prompt_ids = ids_of(model, prompt)
        for number, (mode, spec) in enumerate(pairs, 1):
            mask = mask_by_hand(spec, prompt_ids, len(prompt_ids), model.tokenizer)
            expected = by_hand(model, sae, mode, mask, prompt_ids, 0.8)
            close(got[row, number], expected[-1])
            text = model.tokenizer(f" {OPTIONS[row][0]}", add_special_tokens=False).input_ids
            whole = [*prompt_ids, *text[:-1]]
            mask = mask_by_hand(spec, whole, len(prompt_ids), model.tokenizer)
            rows = by_hand(model, sae, mode, mask, whole, 0.8)[-len(text) :]
            expected = rows[torch.arange(len(text)), text].sum()
            close(scores[row].log_probs[number, 0], expected)
    moved = (got[:, 1:] - got[:, :1]).abs().amax((0, 2))
    assert [bool(m > 1e-2) for m in moved] == [spec != "generated" for _, spec in pairs]


@pytest.mark.parametrize("mode", MODES)
def test_cached_texts_are_those_written_without_a_cache(llama, transcoder, mask_by_hand, mode):
    sae, n_new = transcoder("jumprelu_skip_transcoder"), 6
    edit = direction(sae, mode, "answer", coefficient=2.0)
    written = generate_branches(llama, PROMPTS, [edit], SamplingConfig(n_new))
    for prompt, [_, steered] in zip(PROMPTS, written, strict=True):
        start = ids_of(llama, prompt)
        tokens = list(start)
        for _ in range(n_new):
            mask = mask_by_hand("answer", tokens, len(start), llama.tokenizer)
            tokens.append(int(by_hand(llama, sae, mode, mask, tokens, 2.0)[-1].argmax()))
        until_end = takewhile(lambda t: t != llama.tokenizer.eos_token_id, tokens[len(start) :])
        assert list(steered.tokens) == list(until_end)
        with edit.apply(llama), torch.inference_mode():
            cached = llama.original_model.generate(
                torch.tensor([start]), max_new_tokens=n_new, do_sample=False, eos_token_id=None
            )
        assert cached[0].tolist() == tokens
    assert any(steered.tokens != base.tokens for base, steered in written)


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_apply_is_a_branch_also_on_padded_rows(llama, transcoder, positions):
    edits = [direction(transcoder(), mode, positions) for mode in MODES]
    rows = [ids_of(llama, prompt) for prompt in PROMPTS]
    most, pad = max(map(len, rows)), llama.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (most - len(row)) + row for row in rows])
    attention = torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows])
    got = branch(llama, PROMPTS, edits)
    for number, edit in enumerate(edits, 1):
        with edit.apply(llama), torch.inference_mode():
            output = llama.original_model(
                input_ids=tokens,
                attention_mask=attention,
                position_ids=(attention.cumsum(-1) - 1).clamp(min=0),
            )
        close(output.logits[:, -1].log_softmax(-1), got[:, number])


def test_a_transcoder_reads_what_its_branch_has_written_before(llama, random_sae, transcoder):
    below = Direction(
        "below",
        "blocks.0.hook_resid_post",
        EditLatents(random_sae(hook_name="blocks.0.hook_resid_post"), [1, 2], [2.0, 3.0]),
        "all",
    )
    # One that writes at the very site that is read.
    sae = transcoder(read="hook_attn_out")
    at_once = Direction("pushed", "blocks.1.hook_attn_out", AddVector(torch.ones(D_MODEL)), "all")
    clamped = direction(sae, "clamp", "all")
    chosen = [clamped, [below, clamped], [at_once, clamped], [below, at_once]]
    got = branch(llama, PROMPTS, chosen)
    close(got, branch(llama, PROMPTS, chosen, reference=True))
    for number, together in ((2, [below, clamped]), (3, [at_once, clamped])):
        for row, prompt in enumerate(PROMPTS):
            with apply_all(llama, together), torch.inference_mode():
                logits = llama(torch.tensor([ids_of(llama, prompt)]))
            close(logits[0, -1].log_softmax(-1), got[row, number])
    assert (got[:, 1] - got[:, 3]).abs().max() > 1e-2


def test_captured_prompts_serve_transcoders(llama, transcoder):
    edits = [direction(transcoder(), mode) for mode in MODES]
    captured = capture_prompts(llama, PROMPTS, f"blocks.1.{OUT}", continuations=OPTIONS)
    close(captured.branch(edits), branch(llama, PROMPTS, edits))


def test_a_gate_reads_a_transcoders_latents(llama, transcoder):
    sae = transcoder()
    gate = Gate(sae.cfg.metadata.hook_name, torch.linspace(-1, 1, 24), sae=sae)
    edit = direction(sae, "add", gate=gate)
    got = branch(llama, PROMPTS, [edit])
    close(got, branch(llama, PROMPTS, [edit], reference=True))
    shares = []
    for row, prompt in enumerate(PROMPTS):
        _, cache = llama.run_with_cache(torch.tensor([ids_of(llama, prompt)]))
        # Its first token opens the text, and none of the others is special.
        f = sae.encode(cache[sae.cfg.metadata.hook_name])[0, 1:].mean(0).sqrt()
        shares.append(float(f @ gate.weights))
        opened = direction(sae, "add", coefficient=shares[-1])
        close(got[row], branch(llama, [prompt], [opened])[0])
    assert len({round(share, 2) for share in shares}) > 1


def test_what_is_added_is_a_plain_vector_and_has_a_dose(llama, transcoder):
    sae = transcoder(normalize_activations="layer_norm")
    made = steer(llama, sae, {3: 2.0, 17: -1.5})
    assert made.hook_name == f"blocks.1.{OUT}"
    assert made.reads == made.hook_name
    torch.testing.assert_close(made.constant, 2 * sae.W_dec[3] - 1.5 * sae.W_dec[17])
    clamped = direction(sae, "clamp")
    assert clamped.reads == "blocks.1.mlp.hook_in"
    assert all(dose > 0 for dose in relative_dose(llama, [made, clamped]))


def test_its_narrow_copy_encodes_alike(transcoder):
    for kind in TRANSCODERS:
        sae = transcoder(kind, normalize_activations="layer_norm")
        edit = EditLatents(sae, LATENTS, VALUES, "clamp")
        x = torch.randn(5, D_MODEL)
        torch.testing.assert_close(edit.encode(x), sae.encode(x)[:, LATENTS])
        torch.testing.assert_close(
            edit.delta(x), difference_by_hand(sae, x, "clamp"), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("reads", "writes", "why"),
    [
        ("blocks.1.mlp.hook_in", "blocks.2.hook_mlp_out", "both must be in one block"),
        ("blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "in this order"),
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post", "at its block's hook_mlp_out"),
    ],
)
def test_transcoders_across_blocks_are_read_only(transcoder, reads, writes, why):
    sae = transcoder()
    sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_name_out = reads, writes
    assert abilities(sae).reads
    with pytest.raises(InputError, match=f"can be read .* but cannot steer: .*{why}"):
        EditLatents(sae, LATENTS, VALUES)


def test_what_a_transcoder_cannot_do_is_refused(llama, transcoder):
    sae = transcoder()
    with pytest.raises(InputError, match="reconstructs another activation than it reads"):
        Reconstruct(sae)
    with pytest.raises(InputError, match=r"trained at blocks\.1\.hook_mlp_out, and cannot edit"):
        Direction("x", "blocks.1.hook_resid_post", EditLatents(sae, LATENTS, VALUES))
    elsewhere = transcoder()
    elsewhere.cfg.metadata.hook_name = "blocks.1.nowhere.hook_in"
    with pytest.raises(InputError, match=r"no site 'blocks\.1\.nowhere\.hook_in'"):
        branch(llama, PROMPTS, [direction(elsewhere)])
    # TransformerBridge has this hook point, and passes it only when it is told to.
    silent = transcoder(read="hook_mlp_in")
    with pytest.raises(InputError, match="does not compute"):
        EditLatents(silent, LATENTS, VALUES, "clamp")
