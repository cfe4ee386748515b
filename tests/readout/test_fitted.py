from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import CLOSED, directions, with_readouts
from scipy.special import log_softmax
from tiny import save_tiny_model

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.models.load import load_model
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout.fitted import as_fitted, fitted_weights
from saepd.readout.options import read_options


def by_hand(scores, base, own):
    """What each row's readout makes of scores, written out option by option."""
    n, centred = len(scores[0]), scores[0] - scores[0].mean()
    rows = []
    for row, weights in zip(scores, [base, *own], strict=True):
        inverse, *biases, last = weights
        biases = [*biases, *[0.0] * n][:n]
        raised = [
            inverse * centred[j] + biases[j] + (last if j == n - 1 else 0.0) + row[j] - scores[0][j]
            for j in range(n)
        ]
        rows.append(log_softmax(raised))
    return np.stack(rows)


def scored(model, item, edits):
    prompt = item_prompt(model, item.prompt, item.options, ReadoutConfig())
    [(scores, _)] = score_continuations(model, [prompt], [item.options], edits)
    return scores.double().numpy()


def test_a_branch_is_read_as_the_formula_says(llama):
    edits = with_readouts(directions())
    for item, read in zip(CLOSED, read_options(llama, CLOSED, edits), strict=True):
        scores = scored(llama, item, edits)
        own = [edit.readout.own for edit in edits]
        np.testing.assert_allclose(
            read.log_probs(), by_hand(scores, edits[0].readout.base, own), atol=1e-4
        )
        torch.testing.assert_close(read.scores, read.log_probs(), atol=1e-5, rtol=0)
        assert read.n_tokens.tolist() == [1] * len(item.options)
        # How much the options hold together is the model's to say.
        np.testing.assert_allclose(read.mass, np.exp(scores).sum(1), rtol=1e-4)


def test_options_of_few_and_of_many_positions():
    scores = torch.randn(2, 5)
    base, own = [0.5, 1.0, 0.3], [2.0, 0.0, -1.0]
    expected = by_hand(scores.double().numpy(), base, [own])
    np.testing.assert_allclose(as_fitted(scores, [np.array(base), np.array(own)]), expected)


def test_at_strength_zero_only_the_readouts_differ(llama):
    [edit] = with_readouts(directions(1))
    [still] = read_options(llama, CLOSED[:1], [edit.scaled(0.0)])
    scores = scored(llama, CLOSED[0], [])
    expected = by_hand(np.concatenate([scores, scores]), edit.readout.base, [edit.readout.own])
    np.testing.assert_allclose(still.log_probs(), expected, atol=1e-4)
    [run] = read_options(llama, CLOSED[:1], [edit])
    assert (run.scores[1] - still.scores[1]).abs().max() > 1e-2


def test_raw_scores_are_the_models_own(llama):
    edits = directions()
    plain = read_options(llama, CLOSED, edits)
    for own, expected in zip(
        read_options(llama, CLOSED, with_readouts(edits), raw=True), plain, strict=True
    ):
        assert torch.equal(own.scores, expected.scores)


def test_directions_are_read_in_the_config_that_their_readout_was_fitted_with(llama):
    config = ReadoutConfig(template="Q: {prompt}\nA:", length_normalised=True)
    edits = with_readouts(directions(), config)
    [read] = read_options(llama, CLOSED[:1], edits)
    [told] = read_options(llama, CLOSED[:1], edits, config)
    [raw] = read_options(llama, CLOSED[:1], directions(), config)
    assert torch.equal(read.scores, told.scores)
    own = [edit.readout.own for edit in edits]
    expected = by_hand(raw.scores.double().numpy(), edits[0].readout.base, own)
    np.testing.assert_allclose(read.scores, expected, atol=1e-4)
    with pytest.raises(InputError, match=r"'p0' was fitted with another readout, .*'Q: \{prompt\}"):
        read_options(llama, CLOSED[:1], edits, ReadoutConfig())


def test_one_branch_of_several_directions_has_one_readout(llama):
    one, other = directions()
    [fitted] = with_readouts([one])
    both = [fitted, replace(other, readout=fitted.readout)]
    [read] = read_options(llama, CLOSED[:1], [both])
    scores = scored(llama, CLOSED[0], [both])
    expected = by_hand(scores, fitted.readout.base, [fitted.readout.own])
    np.testing.assert_allclose(read.log_probs(), expected, atol=1e-4)


def test_readouts_that_do_not_go_together_are_refused(llama):
    plain, (one, other) = directions(), with_readouts(directions())
    apart = replace(other, readout=replace(other.readout, base=other.readout.base + 1))
    with pytest.raises(InputError, match="'p0' has no fitted readout, and others have one"):
        read_options(llama, CLOSED, [one, plain[0]])
    with pytest.raises(InputError, match="the branch of direction 'p0' has several readouts"):
        read_options(llama, CLOSED, [[one, other]])
    with pytest.raises(InputError, match="'p0' and 'p1' were fitted apart"):
        read_options(llama, CLOSED, [one, apart])
    assert len(read_options(llama, CLOSED, [one, plain[0]], raw=True)) == len(CLOSED)
    assert fitted_weights([]) is None and fitted_weights([plain]) is None


def test_half_precision_is_read_to_its_own_rounding(llama, tmp_path):
    half = load_model(save_tiny_model("llama", tmp_path / "llama"), device="cpu", dtype="bfloat16")
    edits = with_readouts(directions())
    full = read_options(llama, CLOSED, edits)
    for one, other in zip(read_options(half, CLOSED, edits), full, strict=True):
        plain = read_options(half, CLOSED, edits, raw=True)
        assert plain[0].scores.dtype == one.scores.dtype
        torch.testing.assert_close(one.scores, other.scores, atol=0.35, rtol=0)
