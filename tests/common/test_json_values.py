import json
import math

import numpy as np
import pytest

from saepd.common.json_values import finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_does_not_know_is_none(value):
    assert finite(value) is None


@pytest.mark.parametrize("value", [0, -1.5, np.float32(0.25)])
def test_numbers_stay_and_can_be_written(value):
    assert json.loads(json.dumps(finite(value))) == value
