"""A written text cut into pieces, each with a number of the tokens that wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def token_strip(text: str, tokens: Sequence[tuple[str, float]]) -> list[Piece]:
    """A text, token by token, with what is to be shown of each.

    Args:
        text: What the tokens say together.
        tokens: What each says alone, with a replacement character where that is a part of a
            character; and its number.
    """
    pieces: list[Piece] = []
    shown = 0
    # Numbers of tokens that are only a part of a character, or are not in the text.
    waiting: list[float] = []
    for alone, number in tokens:
        # The text does not repeat a blank that ends the prompt.
        token = alone if pieces or text.startswith(alone) else alone.lstrip()
        at = text.find(token, shown)
        is_there = 0 <= at <= shown + _MOST_SKIPPED * (len(waiting) + 1)
        if not token or _HALF_A_CHARACTER in token or not is_there:
            waiting.append(number)
            continue
        if waiting and text[shown:at].strip():
            pieces.append(Piece(text[shown:at], max(waiting)))
            shown, waiting = at, []
        end = at + len(token)
        pieces.append(Piece(text[shown:end], max([number, *waiting])))
        shown, waiting = end, []
    if shown < len(text):
        pieces.append(Piece(text[shown:], max(waiting, default=0.0)))
    return pieces
