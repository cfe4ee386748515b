"""A written text cut into pieces, each with a number of the tokens that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from saepd.branches.writing.trace import Generated, Step

_HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"
# Characters that tokens may leave out where they stand alone, such as a word's blank.
_MOST_SKIPPED = 4


class Piece(NamedTuple):
    """A part of a text: one token's, or that of several which write a character together.

    Attributes:
        text: The part; all of them joined are the whole text.
        value: The largest number of its tokens, such as their KL in nats.
    """

    text: str
    value: float


def token_strip(written: Generated, value: Callable[[Step], float]) -> list[Piece]:
    """The text that was written, token by token, with what is to be shown of each.

    Args:
        written: A text with its steps.
        value: The number of a step.
    """
    found: list[Piece] = []
    shown = 0
    # Numbers of tokens that are only a part of a character, or are not in the text.
    waiting: list[float] = []
    for step in written.steps:
        own = value(step)
        # The text does not repeat a blank that ends the prompt.
        token = step.text if found or written.text.startswith(step.text) else step.text.lstrip()
        at = written.text.find(token, shown)
        is_there = 0 <= at <= shown + _MOST_SKIPPED * (len(waiting) + 1)
        if not token or _HALF_A_CHARACTER in token or not is_there:
            waiting.append(own)
            continue
        if waiting and written.text[shown:at].strip():
            found.append(Piece(written.text[shown:at], max(waiting)))
            shown, waiting = at, []
        end = at + len(token)
        found.append(Piece(written.text[shown:end], max([own, *waiting])))
        shown, waiting = end, []
    if shown < len(written.text):
        found.append(Piece(written.text[shown:], max(waiting, default=0.0)))
    return found
