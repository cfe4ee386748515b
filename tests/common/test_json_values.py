import datetime
import json
import math

import numpy as np
import pytest

from saepd.common.json_values import as_json, finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_does_not_know_is_none(value):
    assert finite(value) is None


@pytest.mark.parametrize("value", [0, -1.5, np.float32(0.25)])
def test_numbers_stay_and_can_be_written(value):
    assert json.loads(json.dumps(finite(value))) == value


def test_values_of_any_kind_can_be_written():
    day = datetime.date(2020, 1, 2)
    numbers = [np.int64(3), np.float32(0.5), np.float64(-np.inf), np.bool_(True), None]
    value = {"a": (1, "x", numbers), 2: {day}, "right": np.array([True])}
    written = json.loads(json.dumps(as_json(value), allow_nan=False))
    numbers = [3, 0.5, None, True, None]
    assert written == {"a": [1, "x", numbers], "2": ["2020-01-02"], "right": [True]}
