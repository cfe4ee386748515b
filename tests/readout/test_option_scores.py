from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from saepd.common.errors import InputError
from saepd.readout.option_scores import OptionScores


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_log_probs_are_those_of_scipy(temperature):
    scores = -5 * torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    read = OptionScores(scores, scores.exp().sum(-1), torch.ones(4).long())
    found = read.log_probs(temperature)
    np.testing.assert_allclose(found, log_softmax(scores / temperature, axis=-1), atol=1e-6)
    assert read.log_probs().exp().sum() == pytest.approx(3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    scores = torch.zeros(1, 2)
    with pytest.raises(InputError, match="it must be a finite number above 0"):
        OptionScores(scores, scores.sum(-1), torch.ones(2).long()).log_probs(temperature)


def test_what_has_no_name_is_numbered():
    scores = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]).log()
    plain = OptionScores(scores, torch.ones(3), torch.ones(2).long())
    assert repr(plain).splitlines() == [
        "OptionScores(",
        "  base: option 1 0.50, option 2 0.50",
        "  branch 1: option 1 0.90, option 2 0.10",
        "  branch 2: option 1 0.20, option 2 0.80)",
    ]
    named = replace(plain, options=("Yes", "No"), branches=("base", "left", "right"), warning="no")
    assert repr(named).splitlines()[2:] == [
        "  left: Yes 0.90, No 0.10",
        "  right: Yes 0.20, No 0.80",
        "  warning: no)",
    ]
