import warnings

import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL, SITE, save_random, save_tiny_model, tiny_tokenizer
from transformers import GPTNeoConfig, OpenAIGPTConfig

from saepd.branches import fast_path, fast_path_probes
from saepd.branches.captured import capture_prompts
from saepd.branches.engine import running
from saepd.branches.gradients import option_gradients
from saepd.branches.run import branch, score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate, generate_batch, generate_branches
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.models.load import load_model
from saepd.models.tokens import continuation_ids, prompt_ids

PROMPTS = ["Is it so? Say, is it", "Well", "A prompt that is rather longer than the others are"]
OPTIONS = [["yes", "no"], ["b", "c d", "very"], ["x"]]
WRITE = SamplingConfig(max_new_tokens=3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, where nothing is proven yet."""
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "branch-proofs"


@pytest.fixture
def fresh(tmp_path, cache):
    """A model that has never been branched."""
    return lambda architecture="llama": load_model(
        save_tiny_model(architecture, tmp_path / architecture), device="cpu"
    )


@pytest.fixture
def broken_engine(monkeypatch):
    """An engine that sees a column too few, as an architecture might have it."""
    right = running.additive
    monkeypatch.setattr(running, "additive", lambda *a: torch.roll(right(*a), 1, -1))


def directions():
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    return [
        Direction("a", SITE, AddVector(vectors[0]), "answer"),
        Direction("b", "blocks.2.hook_resid_pre", AddVector(vectors[1]), "all"),
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_fast_path_is_proven_also_beyond_a_window(fresh, architecture):
    model = fresh(architecture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fast_path.is_proven(model, 10)
        assert fast_path.is_proven(model, 200)


def test_a_proof_is_kept_and_read_again(fresh, cache, monkeypatch):
    model = fresh()
    assert fast_path.is_proven(model, 10)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(fast_path, "_difference", lambda *_: pytest.fail("proven twice"))
    assert fast_path.is_proven(model, 10)
    fast_path._verdicts.clear()
    assert fast_path.is_proven(model, 10)


def test_other_weights_are_proven_anew(fresh, cache):
    model = fresh()
    fast_path.is_proven(model, 10)
    fast_path._verdicts.clear()
    with torch.no_grad():
        next(model.original_model.parameters()).mul_(1.5)
    fast_path.is_proven(model, 10)
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_is_no_verdict_is_not_believed(fresh, cache):
    model = fresh()
    assert fast_path.is_proven(model, 10)
    [file] = cache.iterdir()
    file.write_text("[]")
    fast_path._verdicts.clear()
    assert fast_path.is_proven(model, 10)


def everything(model):
    """What the engine can be asked for, as tensors and texts."""
    edits = directions()
    captured = capture_prompts(model, PROMPTS, SITE, positions="all", continuations=OPTIONS)
    written = [
        *generate_batch(model, PROMPTS, edits, sampling=WRITE),
        *(t for own in generate_branches(model, PROMPTS, edits, WRITE) for t in own),
    ]
    scores = score_continuations(model, PROMPTS, OPTIONS, edits)
    gradients = option_gradients(model, PROMPTS, OPTIONS, SITE)
    numbers = [
        branch(model, PROMPTS, edits),
        captured.branch(edits),
        *(s.log_probs for s in scores),
        *(s.log_probs for s in captured.score_continuations(edits)),
        *(g.log_probs for g in gradients),
        *(g.gradients for g in gradients),
    ]
    texts = ["".join(generate(model, PROMPTS[0], edits, sampling=WRITE))]
    return numbers, texts + [text.text for text in written]


def test_where_the_fast_path_is_wrong_the_reference_gives_the_same(fresh, broken_engine, request):
    model = fresh()
    with pytest.warns(UserWarning, match=r"llama: branches run one after .*: off by") as said:
        numbers, texts = everything(model)
    assert sum("one after the other" in str(w.message) for w in said) == 1
    request.getfixturevalue("monkeypatch").undo()
    fast_path._verdicts.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right, written = everything(model)
    assert texts == written
    for one, other in zip(numbers, right, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_where_the_fast_path_fails_the_reference_runs(fresh, monkeypatch):
    model = fresh()
    monkeypatch.setattr(fast_path_probes, "start", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        assert not fast_path.is_proven(model, 10)


def test_a_lack_of_memory_is_no_verdict(fresh, cache, monkeypatch):
    model = fresh()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fast_path_probes, "start", full)
    with pytest.raises(torch.OutOfMemoryError):
        fast_path.is_proven(model, 10)
    assert not cache.exists()


def test_a_model_that_cannot_run_at_all_is_refused(fresh):
    model = fresh()
    model.original_model.lm_head.forward = None
    with pytest.raises(InputError, match="cannot be steered"):
        branch(model, PROMPTS, directions())


def test_captured_for_a_later_block_the_reference_refuses_too(fresh, broken_engine):
    model = fresh()
    with pytest.warns(UserWarning, match="one after the other"):
        captured = capture_prompts(model, PROMPTS, "blocks.2.hook_resid_post")
    with pytest.raises(InputError, match="captured up to block"):
        captured.branch([directions()[0]])


def test_a_model_that_reads_ahead_is_refused(fresh):
    model = fresh()
    attention = model.original_model.model.layers[0].self_attn
    attention.register_forward_hook(
        lambda _m, _a, out: (out[0] + out[0].mean(1, keepdim=True), *out[1:])
    )
    with pytest.raises(InputError, match="not causal"):
        branch(model, PROMPTS, directions())


def test_a_model_that_never_passes_its_sites_is_refused(tmp_path, cache):
    # Its blocks hand on lists, which the bridge's hook at their end lets pass unseen.
    tokenizer = tiny_tokenizer()
    config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=D_MODEL, n_layer=3, n_head=4)
    save_random(config, tokenizer, tmp_path / "gpt")
    model = load_model(tmp_path / "gpt", device="cpu", trust_bridge=True)
    with pytest.raises(InputError, match="never pass their hook_out"):
        branch(model, PROMPTS, directions())
    ids = model.tokenizer("so", return_tensors="pt").input_ids
    with (
        directions()[0].apply(model),
        pytest.raises(InputError, match=r"never passes blocks\.1\.hook_resid_post"),
    ):
        model.original_model(ids)


def test_a_window_that_the_engine_does_not_know_is_found_out(tmp_path, cache):
    # Longer than the first probes, so that only a text beyond it shows that it is there.
    tokenizer = tiny_tokenizer()
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        num_layers=4,
        num_heads=4,
        max_position_embeddings=200,
        attention_types=[[["global", "local"], 2]],
        window_size=64,
    )
    torch.manual_seed(0)
    save_random(config, tokenizer, tmp_path / "neo")
    model = load_model(tmp_path / "neo", device="cpu")
    assert fast_path.is_proven(model, 60)
    prompt, texts = "so it is and so it was " * 4, ["yes, so it is", "no", "some day perhaps"]
    with pytest.warns(UserWarning, match="slowly on texts longer than its window of 64"):
        [(scores, _)] = score_continuations(model, [prompt], [texts], [])
    before = prompt_ids(model.tokenizer, prompt)
    for text, score in zip(texts, scores[0], strict=True):
        row = before + continuation_ids(model.tokenizer, prompt, text)
        log_probs = model.original_model(torch.tensor([row])).logits[0].log_softmax(-1)
        own = log_probs[range(len(before) - 1, len(row) - 1), row[len(before) :]]
        assert score == pytest.approx(float(own.sum()), abs=1e-3)


def test_a_model_without_a_stack_of_blocks_is_refused(fresh):
    model = fresh()
    del model._modules["blocks"]
    for run in (
        lambda: branch(model, PROMPTS, directions()),
        lambda: score_continuations(model, PROMPTS, OPTIONS, []),
        lambda: directions()[0].apply(model).__enter__(),
    ):
        with pytest.raises(InputError, match="no single stack of blocks"):
            run()
