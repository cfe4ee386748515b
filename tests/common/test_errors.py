import pytest

from saepd.common.errors import InputError, first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("no such file: name one"), "no such file: name one"),
        (ValueError("\n  bad header \nand much more"), "bad header"),
        (MemoryError(), "MemoryError"),
        (KeyError("a"), "KeyError: 'a'"),
    ],
)
def test_an_error_says_one_line(error, expected):
    assert first_line(error) == expected
