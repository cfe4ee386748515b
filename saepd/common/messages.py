"""Values as they stand in messages."""

from __future__ import annotations

import reprlib

_LONGEST = 60
_brief = reprlib.Repr()
_brief.maxlevel = 4
_brief.maxlist = _brief.maxtuple = _brief.maxdict = _brief.maxset = 20
_brief.maxstring = _brief.maxother = _brief.maxlong = 4 * _LONGEST


def shortened(value: object) -> str:
    """A value as it may stand in a message: quoted, escaped and at most 60 characters."""
    try:
        # Neither length nor depth of what stands in a file may cost time, or raise.
        text = repr(value[: 2 * _LONGEST]) if isinstance(value, str) else _brief.repr(value)
    except (ValueError, RecursionError):
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
