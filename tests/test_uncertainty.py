import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from saepd.uncertainty import branch_disagreement


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
    return entropy(p.mean(0)) - np.mean([entropy(row) for row in p])


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
