"""How a model is asked, and how its answer to options is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from saepd.common.errors import InputError

Kind = Literal["text", "letter"]


Style = Literal["plain", "chat"]


SURVEY_TEMPLATE = "A survey asked: {prompt}\nMost people answered:"
_SLOT = re.compile(r"\{(\w+)\}")


def rendered(template: str, **texts: str) -> str:
    """A template with every slot that there is a text for filled; other braces are left alone.

    Args:
        template: Text with slots, as ``{prompt}``.
        texts: Name of a slot -> what stands there. What it says is never read as a slot again.
    """
    return _SLOT.sub(lambda slot: texts.get(slot[1], slot[0]), template)


@dataclass(frozen=True)
class ReadoutConfig:
    """How options are read.

    Attributes:
        readout: What of an option is scored: its ``text``, or the ``letter`` it is listed under.
        style: How a question is put to the model: as ``plain`` text, or in its ``chat`` template.
        length_normalised: Divide each option's log-likelihood by its number of tokens.
        template: Plain prompt of the text readout; ``{prompt}`` stands for the question.

    Raises:
        InputError: an unknown readout or style, or a template that the question has no place in.
    """

    readout: Kind = "text"
    style: Style = "plain"
    length_normalised: bool = False
    template: str = SURVEY_TEMPLATE

    def __post_init__(self) -> None:
        if self.readout not in ("text", "letter"):
            raise InputError(f"unknown readout {self.readout!r}: use text or letter")
        if self.style not in ("plain", "chat"):
            raise InputError(f"unknown style {self.style!r}: use plain or chat")
        if "{prompt}" not in self.template:
            raise InputError(f"the template {self.template!r} has no {{prompt}}: put it in")
