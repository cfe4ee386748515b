import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from saepd.common.errors import InputError
from saepd.merge.disagreement import (
    branch_disagreement,
    entropy,
    kl_from_base,
    least_confidence,
    perspective_disagreement,
    small_margin,
)


def random_branches(seed, n_branches, n_options, spread):
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(n_branches, n_options, generator=generator)
    return scores.log_softmax(-1)


branches = st.builds(
    random_branches,
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(2, 9),
    st.sampled_from([1e-4, 0.3, 3.0, 100.0]),
)
everything = settings(deadline=None, max_examples=80)


def by_definition(log_probs):
    p = log_probs.double().exp().numpy()
    return scipy_entropy(p.mean(0)) - np.mean([scipy_entropy(row) for row in p])


def test_three_branches_that_share_nothing_disagree_by_log_three():
    found = branch_disagreement(torch.eye(3).log())
    assert float(found) == pytest.approx(math.log(3), abs=1e-12)
    wide = torch.eye(3).repeat_interleave(2, -1) / 2
    assert float(branch_disagreement(wide.double().log())) == pytest.approx(math.log(3), abs=1e-12)


def test_two_branches_of_a_known_disagreement():
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    # The mean is (3/4, 1/4).
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25) - math.log(2) / 2
    assert float(branch_disagreement(p.log())) == pytest.approx(expected, abs=1e-7)


@everything
@given(branches)
def test_it_is_entropy_of_the_mean_less_mean_entropy(log_probs):
    found = float(branch_disagreement(log_probs))
    assert found == pytest.approx(by_definition(log_probs), abs=1e-6)


@everything
@given(branches)
def test_it_lies_between_nothing_and_the_log_of_the_number_of_branches(log_probs):
    found = float(branch_disagreement(log_probs))
    assert 0 <= found <= math.log(len(log_probs)) + 1e-6


@everything
@given(branches, st.randoms(use_true_random=False))
def test_neither_the_order_of_branches_nor_that_of_options_matters(log_probs, random):
    rows, columns = (random.sample(range(n), n) for n in log_probs.shape)
    torch.testing.assert_close(
        branch_disagreement(log_probs[rows][:, columns]), branch_disagreement(log_probs)
    )


@everything
@given(branches, st.integers(1, 5))
def test_equal_branches_agree(log_probs, n):
    found = float(branch_disagreement(log_probs[:1].expand(n, -1)))
    assert 0 <= found < 1e-9


@everything
@given(branches, st.integers(2, 3))
def test_what_every_branch_says_twice_it_says_once(log_probs, n):
    torch.testing.assert_close(
        branch_disagreement(log_probs.repeat(n, 1)), branch_disagreement(log_probs)
    )


def test_a_batch_is_measured_row_by_row():
    rows = torch.stack([random_branches(seed, 3, 5, 2.0) for seed in range(6)])
    found = branch_disagreement(rows.view(2, 3, 3, 5))
    assert found.shape == (2, 3)
    torch.testing.assert_close(found.flatten(), torch.stack([*map(branch_disagreement, rows)]))
    assert found.min() > 0.01


# --- the perspectives alone ---


def test_perspectives_that_move_together_disagree_with_the_base_and_not_with_each_other():
    log_probs = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]).log()
    assert float(branch_disagreement(log_probs)) > 0.1
    assert float(perspective_disagreement(log_probs)) == pytest.approx(0, abs=1e-9)


def test_perspectives_are_all_rows_but_the_first():
    rows = torch.stack([random_branches(seed, 4, 5, 2.0) for seed in range(3)])
    found = perspective_disagreement(rows)
    torch.testing.assert_close(found, branch_disagreement(rows[:, 1:]))
    assert found.shape == (3,)


# --- one distribution ---

SCORES = (least_confidence, entropy, small_margin)


def test_scores_by_hand():
    log_probs = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]).log()
    approx = {"rtol": 0, "atol": 1e-6}
    expected = {
        least_confidence: [0.3, 0.6],
        small_margin: [0.5, 1.0],
        entropy: [scipy_entropy([0.7, 0.2, 0.1]), scipy_entropy([0.4, 0.4, 0.2])],
    }
    for score, values in expected.items():
        torch.testing.assert_close(score(log_probs), torch.tensor(values).double(), **approx)


@everything
@given(branches, st.randoms(use_true_random=False))
def test_scores_are_bounded_reached_and_blind_to_the_order_of_options(log_probs, random):
    n = log_probs.shape[-1]
    columns = random.sample(range(n), n)
    uniform, sure = torch.full((n,), -math.log(n)), torch.eye(n)[0].log()
    for score, most in ((least_confidence, 1 - 1 / n), (entropy, math.log(n)), (small_margin, 1)):
        found = score(log_probs)
        assert found.shape == log_probs.shape[:-1]
        assert ((found >= 0) & (found <= most + 1e-9)).all()
        torch.testing.assert_close(score(log_probs[:, columns]), found)
        assert float(score(uniform)) == pytest.approx(most)
        assert float(score(sure)) == pytest.approx(0)


def test_temperature_scales_the_log_probs():
    log_probs = random_branches(1, 5, 4, 3.0)
    expected = 1 - (log_probs.double() / 2.5).softmax(-1).amax(-1)
    torch.testing.assert_close(least_confidence(log_probs, temperature=2.5), expected)
    torch.testing.assert_close(
        least_confidence(log_probs, temperature=1.0), least_confidence(log_probs)
    )
    assert float(least_confidence(log_probs[0], temperature=1e9)) == pytest.approx(0.75, abs=1e-6)


def test_over_two_options_a_temperature_changes_no_ranking():
    log_probs = random_branches(2, 30, 2, 2.0)
    torch.testing.assert_close(
        least_confidence(log_probs).argsort(),
        least_confidence(log_probs, temperature=7.0).argsort(),
    )


# --- errors at the door ---


def test_what_are_no_log_probs():
    for score in (*SCORES, branch_disagreement):
        with pytest.raises(InputError, match="apply log_softmax"):
            score(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
        with pytest.raises(InputError, match="logsumexp nan"):
            score(torch.full((2, 3), math.nan))
        with pytest.raises(InputError, match="two or more options"):
            score(torch.zeros(2, 1))
    with pytest.raises(InputError, match=r"expected \[branches, options\]"):
        branch_disagreement(torch.tensor([0.5, 0.5]).log())
    for too_few in (random_branches(0, 2, 3, 1.0), torch.tensor([0.5, 0.5]).log()):
        with pytest.raises(InputError, match="at least two perspectives"):
            perspective_disagreement(too_few)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="temperature"):
            least_confidence(random_branches(0, 2, 3, 1.0), temperature=temperature)


@everything
@given(branches)
def test_kl_from_the_base_is_scipys_relative_entropy(log_probs):
    log_probs = log_probs.double().log_softmax(-1)
    p = log_probs.exp().numpy()
    found = kl_from_base(log_probs)
    np.testing.assert_allclose(found, [scipy_entropy(p[0], row) for row in p[1:]], atol=1e-9)
    assert kl_from_base(log_probs[[0, 0]]).tolist() == [0]


def test_kl_where_something_is_ruled_out():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [float("nan")] * 3])
    narrower, wider, broken = kl_from_base(p.log()).tolist()
    assert narrower == pytest.approx(math.log(2))
    assert wider == math.inf
    assert math.isnan(broken)
