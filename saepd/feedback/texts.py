"""Texts as a reader sees them, in one form of Unicode, and a number that tells them apart."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata

# Characters that leave no mark: soft hyphen, zero-width space, word joiner, byte-order mark.
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_OTHER_BLANKS = re.compile(r"[^\S\n\r\t ]")


def visible(text: str) -> str:
    """A text as a reader sees it: composed characters, plain blanks, nothing without a mark."""
    text = unicodedata.normalize("NFC", text)
    return _OTHER_BLANKS.sub(" ", _UNSEEN.sub("", text)).strip()


def composed(text: str) -> str:
    """A text in the composed form of Unicode (NFC).

    Raises:
        ValueError: it holds a control character, as NUL, which a damaged file has and no text.
    """
    if control := _CONTROL.search(text):
        raise ValueError(
            f"holds the control character {control[0]!r}, which no text has: take it out, or save "
            "the file again as UTF-8"
        )
    return unicodedata.normalize("NFC", text)


def fingerprint(*texts: str) -> int:
    """64 bits of BLAKE2b over texts."""
    digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
