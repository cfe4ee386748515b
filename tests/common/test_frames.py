import builtins
import sys

import pytest

from saepd.common.errors import InputError
from saepd.common.frames import as_frame


def test_a_frame_has_a_row_for_each_and_a_column_for_each_name():
    frame = as_frame([{"a": 1, "b": "x"}, {"a": 2, "c": None}])
    assert frame["a"].tolist() == [1, 2]
    assert list(frame) == ["a", "b", "c"]
    assert as_frame([]).empty


def test_without_pandas_it_is_said_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "pandas":
            raise ImportError
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'saepd\[explore\]'"):
        as_frame([])
