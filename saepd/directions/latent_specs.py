"""How latents are written that somebody chose: 1203, 1203=4, 15:1203=-2.5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.directions.modes import EditMode

_LATENT = re.compile(r"(?:(?P<block>\d{1,9}):)?(?P<latent>\d{1,9})(?:=(?P<value>.+))?")


@dataclass(frozen=True)
class LatentSpec:
    """One latent, and what is done to it.

    Attributes:
        block: Block whose shipped SAE it is of; None for the SAE that is named otherwise.
        latent: Id of the latent.
        value: What is added, held or multiplied by; None where it is only named.
    """

    block: int | None
    latent: int
    value: float | None


def parse_latents(texts: Sequence[str], mode: EditMode) -> list[LatentSpec]:
    """Read latents as ``LATENT=VALUE`` or ``BLOCK:LATENT=VALUE``, without values to ablate.

    Raises:
        InputError: a text that is none of these, a value that is no number, is missing or is not
            asked for, or a latent that is named twice.
    """
    specs: list[LatentSpec] = []
    for text in texts:
        match = _LATENT.fullmatch(text)
        if match is None:
            raise InputError(
                f"{shortened(text)} names no latent: write LATENT=VALUE, or BLOCK:LATENT=VALUE for "
                "the shipped SAE of that block, as in 15:1203=4"
            )
        block, latent = match["block"], int(match["latent"])
        value = _value(text, match["value"], mode)
        spec = LatentSpec(None if block is None else int(block), latent, value)
        if any((other.block, other.latent) == (spec.block, latent) for other in specs):
            raise InputError(f"latent {text.partition('=')[0]} is named twice: give it once")
        specs.append(spec)
    return specs


def _value(text: str, value: str | None, mode: EditMode) -> float | None:
    if mode == "ablate":
        if value is not None:
            raise InputError(
                f"{shortened(text)} has a value, and mode 'ablate' sets latents to zero: write "
                f"{text.partition('=')[0]} alone"
            )
        return None
    if value is None:
        raise InputError(
            f"{shortened(text)} has no value, and mode {mode!r} needs one: write {text}=VALUE"
        )
    try:
        number = float(value)
    except ValueError:
        raise InputError(
            f"the value of {shortened(text)} is no number: write {text.partition('=')[0]}=4"
        ) from None
    check_number(f"the value of {shortened(text)}", number)
    return number
