from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.models.wording import ReadoutConfig

CONFIG = ReadoutConfig()


def readout(own=(0.5, 1.0, 2.0, 3.0)):
    return FittedReadout(CONFIG, [1.0, 0.0, 0.0, 0.0], own)


def direction(seed=0, **settings):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(f"d{seed}", SITE, AddVector(vector), **settings)


def test_weights_are_copied_and_cannot_be_changed():
    given = np.array([0.5, 1.0, 2.0, 3.0], dtype=np.float32)
    found = readout(given)
    given[0] = 9.0
    assert found.own.dtype == np.float64
    assert found.own.tolist() == [0.5, 1.0, 2.0, 3.0]
    assert found.n_positions == 2
    with pytest.raises(ValueError, match="read-only"):
        found.own[0] = 9.0


def test_equal_numbers_are_one_readout():
    assert readout() == readout() and hash(readout()) == hash(readout())
    assert readout() != readout([0.5, 1.0, 2.0, 4.0])
    assert readout() != replace(readout(), config=ReadoutConfig(length_normalised=True))
    assert FittedReadout.from_json(readout().as_json()) == readout()


@pytest.mark.parametrize(
    ("own", "match"),
    [
        ([0.5, 1.0], "at least three finite numbers"),
        ([0.5, 1.0, float("nan"), 0.0], "at least three finite numbers"),
        ([[0.5, 1.0, 2.0, 3.0]], "at least three finite numbers"),
        ([0.5, 1.0, 2.0], "4 weights of the base but 3"),
        ("text", "no list of numbers"),
        ([10**400, 0, 0, 0], "no list of numbers"),
    ],
)
def test_weights_that_are_none_are_refused(own, match):
    with pytest.raises(InputError, match=match):
        readout(own)


def test_what_is_no_config_or_no_readout_is_refused():
    with pytest.raises(InputError, match="give a ReadoutConfig"):
        FittedReadout("text", [1, 0, 0], [1, 0, 0])
    with pytest.raises(InputError, match="its readout must be a FittedReadout, not list"):
        direction(readout=[1.0, 0.0, 0.0])


def test_a_scaled_direction_keeps_its_readout_and_a_sum_only_a_common_one():
    one, other = direction(0, readout=readout()), direction(1, readout=readout([1, 0, 0, 0]))
    assert (2 * one).readout == (-one).readout == one.scaled(0.1).readout == readout()
    assert (one + 2 * one).readout == readout()
    assert (one + other).readout is None
    assert (one - direction(1)).readout is None
    assert "with its readout" in repr(one) and "readout" not in repr(direction())
