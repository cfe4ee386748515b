"""One model in several threads: right, or refused in one sentence."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.gradients import option_gradients
from saepd.branches.run import branch, score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate, generate_branches
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector

PROMPTS = ("Should the library open?", "Should the museum of clocks open earlier?")
OPTIONS = ["Yes", "No", "Not sure"]
WRITE = SamplingConfig(max_new_tokens=2)


def directions():
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    return [Direction(str(i), SITE, AddVector(v), "answer") for i, v in enumerate(vectors)]


def asked(model, prompt, direction):
    """Every kind of run once, as numbers."""
    [scores] = score_continuations(model, [prompt], [OPTIONS], [direction])
    [gradients] = option_gradients(model, [prompt], [OPTIONS], SITE)
    [written] = generate_branches(model, [prompt], [direction], WRITE)
    streamed = "".join(generate(model, prompt, [direction], sampling=WRITE))
    [log_probs] = branch(model, [prompt], [direction])
    return scores.log_probs, gradients.gradients, log_probs, written, streamed


def same(one, other):
    numbers = zip(one[:3], other[:3], strict=True)
    return all(torch.allclose(a, b, atol=1e-4) for a, b in numbers) and one[3:] == other[3:]


def test_runs_of_several_threads_are_those_of_one(llama):
    cases = list(zip(PROMPTS, directions(), strict=True))
    right = [asked(llama, *case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: asked(llama, *cases[i % 2]), range(24)))
    assert all(same(one, right[i % 2]) for i, one in enumerate(found))


def in_another_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_model_that_another_thread_steers_is_in_use(llama):
    one, other = directions()

    def steer():
        with other.apply(llama):
            pass

    with one.apply(llama):
        for work in (steer, lambda: asked(llama, PROMPTS[0], other)):
            with pytest.raises(InputError, match="another thread is steering it"):
                in_another_thread(work)
        with pytest.raises(InputError, match="leave that block"):
            branch(llama, [PROMPTS[0]], [other])
    in_another_thread(steer)


def test_threads_inside_one_apply_each_see_their_own_positions(llama):
    """As with a streamer, whose generation runs in a thread of its own."""
    [direction, _] = directions()
    texts = [llama.tokenizer(p, return_tensors="pt").input_ids for p in PROMPTS]
    run = llama.original_model.generate
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
    with direction.apply(llama):
        run = llama.original_model.generate
        right = [run(text, **settings).tolist() for text in texts]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda i: run(texts[i % 2], **settings).tolist(), range(16)))
    assert found == [right[i % 2] for i in range(16)]


def test_between_two_pieces_the_model_is_free(llama):
    one, other = directions()
    pieces = generate(llama, PROMPTS[0], [one], sampling=SamplingConfig(max_new_tokens=4))
    first = next(pieces)
    in_another_thread(lambda: asked(llama, PROMPTS[1], other))
    whole = "".join(generate(llama, PROMPTS[0], [one], sampling=SamplingConfig(max_new_tokens=4)))
    assert first + "".join(pieces) == whole
    pieces = generate(llama, PROMPTS[0], [one], sampling=SamplingConfig(max_new_tokens=4))
    next(pieces)
    with other.apply(llama), pytest.raises(InputError, match="leave that block"):
        list(pieces)


def test_a_run_waits_for_the_one_that_holds_the_model(llama):
    from saepd.models.in_use import using

    held, done = threading.Event(), threading.Event()

    def wait():
        held.wait(10)
        branch(llama, [PROMPTS[0]], directions()[:1])
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with using(llama):
        held.set()
        assert not done.wait(0.3)
    thread.join(30)
    assert done.is_set()
