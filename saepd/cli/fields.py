"""What a field of a command's options may be beside an option: a value that needs no name."""

from __future__ import annotations

from dataclasses import MISSING, Field, field
from typing import Any

_POSITIONAL = "given without its name"


def argument(default: Any = MISSING) -> Any:
    """A field whose value may stand on the command line without its name.

    Args:
        default: Its value where it is not given; a class, such as list, makes a new one each time.
    """
    metadata = {_POSITIONAL: True}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def is_argument(one: Field[Any]) -> bool:
    """Whether a field was made by `argument`."""
    return _POSITIONAL in one.metadata
