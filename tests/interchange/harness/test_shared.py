import numpy as np
import pytest
import torch

from saepd.branches.run import score_tokens
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch, generate_branches
from saepd.common.errors import InputError
from saepd.directions.fitted_readout import FittedReadout
from saepd.interchange.harness import shared as module
from saepd.interchange.harness.shared import SharedRun
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.models.wording import ReadoutConfig
from saepd.readout.fitted import as_fitted

QUESTIONS = [
    (((256, 5, 6), (7,)), ((256, 5, 6), (8, 9))),
    # Options behind different contexts, as in tasks that fill a gap.
    (((256, 1), (2, 3)), ((256, 4), (2, 3))),
]


@pytest.fixture
def branches(plain):
    left = [plain(1, "answer", norm=3.0), plain(2, "answer", seed=1, norm=3.0)]
    return [*left, plain(1, "answer", "right", seed=2, norm=3.0)]


def test_rows_are_the_scores_of_each_branch_and_their_merge(llama, branches):
    run = SharedRun(llama, branches)
    assert run.names == ["base", "left", "right", "merged"]
    for q, question in enumerate(QUESTIONS):
        rows = torch.stack([run.scores(QUESTIONS, name)[q] for name in run.names])
        for i, (before, option) in enumerate(question):
            [alone] = score_tokens(
                llama, [list(before)], [[list(option)]], [branches[:2], branches[2]]
            )
            assert torch.allclose(rows[:3, i].float(), alone.log_probs[:, 0], atol=1e-4)
        merged = merge_branches(rows[:3].log_softmax(-1), MergeConfig())
        assert torch.allclose(rows[3].float(), merged, atol=1e-6)


def test_fitted_readouts_are_read_with_and_the_base_stays_as_the_harness_has_it(llama, plain):
    readout = FittedReadout(ReadoutConfig(), np.array([0.5, 0.0, 0.1]), np.array([0.7, 0.3, -0.2]))
    one = plain(1, "answer", norm=3.0, readout=readout)
    run = SharedRun(llama, [one])
    rows = torch.stack([run.scores(QUESTIONS, name)[0] for name in run.names])
    raw = torch.stack([SharedRun(llama, [one.scaled(0.0)]).scores(QUESTIONS, "base")[0]])
    assert torch.allclose(rows[0], raw[0])
    [scored] = score_tokens(llama, [[256, 5, 6]], [[[7], [8, 9]]], [one])
    read = as_fitted(scored.log_probs, [readout.base, readout.own])
    assert torch.allclose(rows[1], read[1], atol=1e-4)
    assert not torch.allclose(rows[1], scored.log_probs[1].double(), atol=1e-2)
    merged = merge_branches(read.log_softmax(-1), MergeConfig())
    assert torch.allclose(rows[2].float(), merged, atol=1e-4)


def test_what_is_asked_again_is_not_run_again(llama, branches, monkeypatch):
    run = SharedRun(llama, branches)
    first = run.scores(QUESTIONS, "base")
    monkeypatch.setattr(module, "score_tokens", None)
    assert torch.equal(first[1], run.scores(QUESTIONS[1:], "base")[0])
    assert run.scores(QUESTIONS, "merged")


def test_texts_are_those_that_generation_writes(llama, branches):
    run, sampling = SharedRun(llama, branches), SamplingConfig(max_new_tokens=4)
    both = [branches[:2], branches[2]]
    apart = generate_branches(llama, ["So", "Once"], both, sampling)
    together = generate_batch(llama, ["So", "Once"], both, sampling=sampling)
    for row, name in enumerate(["base", "left", "right"]):
        assert run.texts(["So", "Once"], sampling, name) == [own[row].text for own in apart]
    assert run.texts(["Once"], sampling, "merged") == [together[1].text]


def test_without_directions_there_is_the_base_alone(llama):
    run = SharedRun(llama, [])
    assert run.names == ["base"]
    assert len(run.scores(QUESTIONS, "base")) == 2
    assert run.texts(["So"], SamplingConfig(max_new_tokens=2), "base")


def test_what_cannot_be_told_apart_or_merged_is_refused(llama, branches):
    run = SharedRun(llama, branches)
    with pytest.raises(InputError, match="no branch 'up'"):
        run.scores(QUESTIONS, "up")
    with pytest.raises(InputError, match="likelihood of a single text"):
        run.scores([QUESTIONS[0][:1]], "merged")
