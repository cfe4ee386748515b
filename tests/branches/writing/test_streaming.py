import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch, generate_branches
from saepd.branches.writing.streaming import stream_all
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.merge.config import MergeConfig

PROMPT = "What is to be done about it?"


def dense(seed):
    vector = 1.5 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(f"p{seed}", SITE, AddVector(vector))


@pytest.mark.parametrize("temperature", [0.0, 1.2])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_everybody_writes_what_each_would_write_alone(tiny_bridge, architecture, temperature):
    model, merge = tiny_bridge(architecture), MergeConfig("mixture")
    directions = [dense(1), [dense(2), dense(3)]]
    sampling = SamplingConfig(max_new_tokens=10, temperature=temperature, seed=2)
    texts, steps, order = {}, [], []
    for written in stream_all(model, PROMPT, directions, merge, sampling):
        assert written.text.startswith(texts.get(written.writer, ("", None))[0])
        texts[written.writer] = (written.text, written.ended_by)
        order.append(written.writer)
        if written.step is not None:
            steps.append(written.step)
    [apart] = generate_branches(model, [PROMPT], directions, sampling)
    [merged] = generate_batch(model, [PROMPT], directions, merge, sampling, trace=True)
    assert texts == {i: (text.text, text.ended_by) for i, text in enumerate([*apart, merged])}
    assert [step.token for step in steps] == list(merged.tokens)
    for step, other in zip(steps, merged.steps, strict=True):
        assert step.disagreement == pytest.approx(other.disagreement, rel=1e-3, abs=1e-6)
        assert step.moved_by == other.moved_by
    # Side by side, and not one after the other.
    assert set(order[:4]) == {0, 1, 2, 3}


def test_who_stops_asking_stops_the_writing(llama):
    stream = stream_all(llama, PROMPT, [dense(1)], sampling=SamplingConfig(max_new_tokens=100))
    next(stream)
    stream.close()
    assert generate_batch(llama, [PROMPT], [dense(1)], sampling=SamplingConfig(max_new_tokens=2))


def test_what_cannot_be_written_is_refused_at_once(llama):
    with pytest.raises(InputError, match="a prompt is empty"):
        stream_all(llama, " ", [dense(1)])
    with pytest.raises(InputError, match="no directions"):
        stream_all(llama, PROMPT, [])
