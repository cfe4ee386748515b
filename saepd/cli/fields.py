"""What a field of a command's options may be beside a plain option."""

from __future__ import annotations

from dataclasses import MISSING, Field, field
from typing import Any

_POSITIONAL = "given without its name"
_GIVEN = "names of the options that were given"


def argument(default: Any = MISSING) -> Any:
    """A field whose value may stand on the command line without its name.

    Args:
        default: Its value where it is not given; a class, such as list, makes a new one each time.
    """
    metadata = {_POSITIONAL: True}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def names_given() -> Any:
    """A field of no option of its own: it holds the names of the options that were given."""
    return field(default=frozenset(), metadata={_GIVEN: True})


def holds_names(one: Field[Any]) -> bool:
    """Whether a field was made by `names_given`."""
    return _GIVEN in one.metadata


def is_argument(one: Field[Any]) -> bool:
    """Whether a field was made by `argument`."""
    return _POSITIONAL in one.metadata
