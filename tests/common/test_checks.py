import numpy as np
import pytest

from saepd.common.checks import check_choice, check_number, check_numbers, check_path
from saepd.common.errors import InputError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [1, 1.5, np.float32(1.5), np.int64(2), 0.1 + 0.2])
def test_numbers_of_every_kind_are_taken(value):
    check_number("x", value, above=0, at_most=2)
    check_numbers("xs", [value, value], at_least=0)


@pytest.mark.parametrize("value", [NAN, INF, -INF, "1", None, True, 1j, [1.0], 10**400])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(InputError, match=r"x is .*: it must be a finite number$"):
        check_number("x", value)


def test_the_bounds_are_told():
    with pytest.raises(InputError, match="x is 0: it must be a finite number above 0 and at most"):
        check_number("x", 0, above=0, at_most=1)
    with pytest.raises(InputError, match="x is 2: it must be a finite number above 0 and at most"):
        check_number("x", 2, above=0, at_most=1)
    with pytest.raises(InputError, match=r"x is 1\.0: it must be a whole number at least 1"):
        check_number("x", 1.0, at_least=1, whole=True)
    check_number("x", 1, at_least=1, at_most=1, whole=True)


@pytest.mark.parametrize("value", [3, "123", (), None, {1: 2}])
def test_what_is_no_list_of_numbers_is_refused(value):
    with pytest.raises(InputError, match="must be a list of at least one number"):
        check_numbers("xs", value)


@pytest.mark.parametrize("value", ["b", None, 3, ["a"]])
def test_a_choice_is_among_the_known_ones(value):
    check_choice("kind", "a", ("a", "aa"))
    with pytest.raises(InputError, match=r"unknown kind .*use one of a, aa"):
        check_choice("kind", value, ("a", "aa"))


@pytest.mark.parametrize("value", [5, None, b"steering", ["steering"]])
def test_what_is_no_path_is_refused_before_it_is_looked_for(value):
    check_path("folder", "steering")
    with pytest.raises(InputError, match="is no folder: give its path"):
        check_path("folder", value)
