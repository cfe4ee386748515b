"""How positions are written: every, all, prompt, generated, answer, last(n), after("marker")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from saepd.common.errors import InputError
from saepd.common.messages import shortened

_NAMES = ("every", "all", "prompt", "generated", "answer")


# More digits than these are more tokens than any text has.
_LAST = re.compile(r"last\((\d{1,9})\)")


_AFTER = re.compile(r"""after\((["'])(.+)\1\)""", re.DOTALL)


@dataclass(frozen=True)
class Positions:
    """A parsed position spec; ``count`` belongs to ``last``, ``marker`` to ``after``."""

    kind: str
    count: int = 0
    marker: str = ""


def parse_positions(spec: str) -> Positions:
    """Parse ``every``, ``all``, ``prompt``, ``generated``, ``answer``, ``last(3)``, ``after("x")``.

    Raises:
        InputError: the spec is none of these.
    """
    if not isinstance(spec, str):
        raise InputError(f"positions are {shortened(spec)}: they must be text, such as 'answer'")
    if spec in _NAMES:
        return Positions(spec)
    if (match := _LAST.fullmatch(spec)) and int(match[1]) > 0:
        return Positions("last", count=int(match[1]))
    if match := _AFTER.fullmatch(spec):
        return Positions("after", marker=match[2])
    raise InputError(
        f"unknown positions {spec!r}: use {', '.join(_NAMES)}, last(n) with n > 0, "
        'or after("marker")'
    )
