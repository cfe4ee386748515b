"""What a format cannot say of a direction: found and told before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saepd.interchange.record import Lost, SiteVector, SteeringRecord
from saepd.models.position_specs import parse_positions


@dataclass(frozen=True)
class Says:
    """What a format can say.

    Attributes:
        positions: Kinds of position specs; every token is among them in all formats.
        lowest_block: The first block whose output can be written to.
        any_site: Whether sites other than outputs of blocks have a name in it.
        latents: Whether it names latents, whatever is done to them.
    """

    positions: frozenset[str] = frozenset({"every"})
    lowest_block: int = 0
    any_site: bool = False
    latents: bool = False


EVERY_TOKEN = Says()


@dataclass(frozen=True)
class Loss:
    """One thing that an export leaves out or changes.

    Attributes:
        perspective: Name of the perspective whose direction it is of.
        what: Which part of a direction.
        sentence: What happens to it.
    """

    perspective: str
    what: Lost
    sentence: str


def losses(record: SteeringRecord, says: Says) -> list[Loss]:
    """What of a record a format cannot say."""
    lost: list[tuple[Lost, str]] = []
    for spec in dict.fromkeys(site.positions for site in record.sites if site.vector is not None):
        if parse_positions(spec).kind not in says.positions:
            lost.append(("positions", f"it writes at positions {spec}, the target at every token"))
    for site in record.sites:
        if site.vector is None:
            mode = "reconstruct" if site.source is None else site.source.mode
            lost.append(("mode", f"what {mode} writes at {site.hook_name} depends on the text"))
        elif not can_hold(site, says):
            lost.append(_no_place(site))
    lost += record.unsaid
    return [Loss(record.perspective, what, sentence) for what, sentence in lost]


def can_hold(site: SiteVector, says: Says) -> bool:
    """Whether a format has a place for what is written at a site."""
    if site.vector is None:
        return False
    return says.any_site or (site.block is not None and site.block >= says.lowest_block)


def _no_place(site: SiteVector) -> tuple[Lost, str]:
    if site.block is None:
        return "site", f"{site.hook_name} is no block's output, which is all the target writes to"
    if site.block < 0:
        return "site", f"{site.hook_name} is before the first block, and the target writes after it"
    return "block 0", f"the target does not write to the output of block {site.block}"


def as_sentence(lost: Sequence[Loss]) -> str:
    """Losses as they stand in one sentence."""
    by_sentence: dict[str, list[str]] = {}
    for loss in lost:
        by_sentence.setdefault(loss.sentence, []).append(loss.perspective)
    return "; ".join(f"{s} ({', '.join(names)})" for s, names in by_sentence.items())
