"""What public functions take as directions: one, several, or a fit that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from saepd.common.errors import InputError
from saepd.directions.direction import Direction


class HasDirections(Protocol):
    """What fitting returns."""

    @property
    def directions(self) -> Sequence[Direction]:
        """One direction for each perspective."""
        ...


Directions: TypeAlias = Direction | Sequence[Direction] | HasDirections
Branches: TypeAlias = Direction | Sequence[Direction | Sequence[Direction]] | HasDirections


def as_directions(given: Directions) -> list[Direction]:
    """A list of the directions that were given, in whichever form.

    Raises:
        InputError: what is given is not made of directions.
    """
    if isinstance(given, Direction):
        return [given]
    directions = getattr(given, "directions", given)
    listed: list[Direction] = []
    for one in directions if isinstance(directions, Sequence) else [directions]:
        if not isinstance(one, Direction):
            raise InputError(
                f"an object of class {type(one).__name__} is no direction: give a Direction, a "
                "list of them, or what fit_directions returns"
            )
        listed.append(one)
    return listed


def as_branches(given: Branches) -> list[list[Direction]]:
    """The directions of every branch, where a list within the list is one branch of several.

    Raises:
        InputError: what is given is not made of directions, or a branch has none.
    """
    directions = getattr(given, "directions", given)
    if isinstance(directions, Direction) or not isinstance(directions, Sequence):
        return [as_directions(directions)]
    branches = [as_directions(branch) for branch in directions]
    if not all(branches):
        raise InputError("a branch has no directions: give it at least one")
    return branches
