"""Words that error messages share: a value cut to fit, and the nearest of the names there are."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection

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


def closest(name: str, known: Collection[str]) -> str | None:
    """The known name that is most like a mistyped one, or None if none is."""
    # Names are compared in lower case, since that is what people mistype most.
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name[: 2 * _LONGEST].lower(), lower, n=1)
    return lower[close[0]] if close else None


def nearest(name: str, known: Collection[str], n_listed: int = 10) -> str:
    """What to write instead of an unknown name: the end of a message."""
    listed = ", ".join(list(known)[:n_listed]) + (", ..." if len(known) > n_listed else "")
    close = closest(name, known)
    return (f"did you mean {shortened(close)}? " if close else "") + f"use one of {listed}"


def shortlist(names: Collection[str], n_listed: int = 5) -> str:
    """Names as they may stand in a message, in which a long list is cut."""
    listed = ", ".join(list(names)[:n_listed])
    return listed + (f" and {len(names) - n_listed} more" if len(names) > n_listed else "")
