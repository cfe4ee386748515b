from types import SimpleNamespace

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.accepting import as_branches, as_directions
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector

ONE, OTHER = (
    Direction(name, SITE, AddVector(torch.full((D_MODEL,), size)))
    for name, size in (("one", 1.0), ("other", -0.5))
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ONE, [ONE]),
        ([ONE, OTHER], [ONE, OTHER]),
        ((ONE, OTHER), [ONE, OTHER]),
        (SimpleNamespace(directions=[ONE, OTHER]), [ONE, OTHER]),
        ([], []),
    ],
)
def test_directions_come_in_every_form(given, expected):
    assert as_directions(given) == expected
    assert as_branches(given) == [[direction] for direction in expected]


@pytest.mark.parametrize("given", [None, 3, "text", [ONE, 3], {"a": ONE}, torch.ones(3)])
def test_what_is_no_direction_is_refused_in_a_sentence(given):
    for read in (as_directions, as_branches):
        with pytest.raises(InputError, match=r"an object of class \w+ is no direction: give"):
            read(given)


def test_a_branch_may_have_several_directions_and_needs_one():
    assert as_branches([ONE, [ONE, OTHER]]) == [[ONE], [ONE, OTHER]]
    with pytest.raises(InputError, match="is no direction: give a Direction"):
        as_directions([[ONE]])
    with pytest.raises(InputError, match="a branch has no directions"):
        as_branches([[ONE], []])


def test_a_direction_and_what_holds_some_run_as_branches(llama):
    both = branch(llama, ["So it is"], [ONE, OTHER])
    assert torch.equal(branch(llama, ["So it is"], SimpleNamespace(directions=[ONE, OTHER])), both)
    torch.testing.assert_close(branch(llama, ["So it is"], ONE), both[:, :2])
