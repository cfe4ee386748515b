"""Which options form a scale, told from well-known scale words and nothing else.

Options are recognised as a scale in four cases; in all others nothing is claimed:

- degrees of one thing, each clearly more than the next: "Very likely", "Somewhat likely", "Not too
  likely", "Not at all likely"; or "Always", "Often", "Sometimes", "Never";
- degrees of two opposite things, from much of one to much of the other, with at most one option
  between them: "Strongly approve", "Approve", "Disapprove", "Strongly disapprove";
- a known pair of opposites and what lies between: "Better", "Worse", "About the same", whose
  natural order is not the one they are listed in;
- consecutive numbers, whose ends may be words.

Options that are no answer to the question ("Don't know", "Refused", "Depends") are off the scale.
A scale has three options or more: with two, a distance along it says no more than total variation.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from saepd.feedback.schema import Item

# A long option is a statement: a degree word in it says nothing about the option as a whole.
_MOST_WORDS = 8

_ASIDE = re.compile(r"\((vol\.?|do not read)\)", re.IGNORECASE)
_OFF_SCALE = re.compile(
    r"(dk|don.t know|refused|no answer|(i.m )?not sure|unsure|(other )?missing|not asked"
    r"|not applicable|never heard of|it depends|depends)\b"
    r"|(both|neither|other|both/neither|neither/both)( equally)?$"
)
_MIDDLE = re.compile(
    r"^neither .* nor |\b(the )?same\b|\bnot changed\b|\bnot much difference\b"
    r"|^no (change|difference|influence|effect|impact)( either way)?$"
    r"|(not|no|n.t) make .*difference|makes no difference|\babout right\b|\bright amount\b"
)
# (level, words). The first whose words stand anywhere in an option tells its level; so bare "no"
# and "not" come after "not too", though they mean less.
_DEGREES = tuple(
    (level, re.compile(rf"\b({words})\b"))
    for level, words in (
        (0, "not at all|at all|none|nothing|never"),
        (1, "not too|not very|not much|only a little|a little|very little|very few|only a few"),
        (1, "only some|just some|slightly|small|rarely|hardly ever"),
        (0, "no|not"),
        (2, "somewhat|sometimes|some|minor"),
        (3, "mostly|fairly|pretty|moderate|moderately|fair amount|a big|many"),
        (4, "completely|strongly|very|great deal|great|a lot|major|top|often|most"),
        (5, "extremely|always|all"),
    )
)
_STRONG = r"extremely|completely|strongly|definitely|very|a great deal|a lot"
_WEAK = r"mostly|somewhat|fairly|pretty|probably|moderately|generally|a little|slightly"
_STRENGTH = re.compile(rf"\b(?:({_STRONG})|({_WEAK}))\b")
_OPPOSITES = (
    (r"\bbetter\b", r"\bworse\b"),
    (r"\btoo (much|great|many)\b", r"\btoo (little|small|few)\b|\bnot enough\b"),
    (r"\bmore\b", r"\b(less|fewer)\b"),
    (r"\bgood\b", r"\bbad\b"),
    (r"\bpositive\b", r"\bnegative\b"),
    (r"\bincreased?\b", r"\b(decreased?|lessen)\b"),
    (r"\bstronger\b", r"\bweaker\b"),
    (r"\bbigger\b", r"\bsmaller\b"),
)


def ordinal_items(items: Iterable[Item]) -> dict[str, tuple[int, ...]]:
    """Item id -> `natural_order` of its options, for the items whose options form a scale."""
    orders = ((item.id, natural_order(item.options)) for item in items)
    return {id_: order for id_, order in orders if order}


def natural_order(options: Sequence[str]) -> tuple[int, ...]:
    """Indices of the options that form a scale, from one end to the other; () if none is known."""
    texts = [_ASIDE.sub("", option).strip().lower() for option in options]
    scale = [
        i for i, text in enumerate(texts) if _MIDDLE.search(text) or not _OFF_SCALE.match(text)
    ]
    on_scale = [texts[i] for i in scale]
    if len(scale) < 3 or max(len(text.split()) for text in on_scale) > _MOST_WORDS:
        return ()
    if _are_numbers(on_scale) or _are_degrees(on_scale):
        return tuple(scale)
    return tuple(scale[i] for i in _between_opposites(on_scale))


def _are_numbers(texts: Sequence[str]) -> bool:
    inner = texts[1:-1]
    if len(inner) < 3 or not all(re.fullmatch(r"\d{1,2}", text) for text in inner):
        return False
    first = int(inner[0])
    return [int(text) for text in inner] == list(range(first, first + len(inner)))


def _are_degrees(texts: Sequence[str]) -> bool:
    levels = [_level(text) for text in texts]
    if None in levels or any(_MIDDLE.search(text) for text in texts):
        return False
    falling = sorted({level for level in levels if level is not None}, reverse=True)
    return levels in (falling, falling[::-1])


def _level(text: str) -> int | None:
    return next((level for level, words in _DEGREES if words.search(text)), None)


def _between_opposites(texts: Sequence[str]) -> list[int]:
    """Positions from one opposite to the other, the middle between them; [] if they are none."""
    middles = [i for i, text in enumerate(texts) if _MIDDLE.search(text)]
    poles = [i for i in range(len(texts)) if i not in middles]
    half = len(poles) // 2
    if len(middles) > 1 or len(poles) % 2:
        return []
    left, right = poles[:half], poles[half:]
    if half == 1:
        known = middles and _are_opposites(texts[left[0]], texts[right[0]])
    else:
        sides = [[_strength(texts[i]) for i in side] for side in (left, right[::-1])]
        stems = [{stem for _, stem in side} for side in sides]
        falls = all(a > b for side in sides for (a, _), (b, _) in itertools.pairwise(side))
        known = falls and len(stems[0]) == len(stems[1]) == 1 and stems[0] != stems[1]
    return [*left, *middles, *right] if known else []


def _are_opposites(one: str, other: str) -> bool:
    return any(
        (re.search(a, one) and re.search(b, other)) or (re.search(b, one) and re.search(a, other))
        for a, b in _OPPOSITES
    )


def _strength(text: str) -> tuple[int, str]:
    """(3 strong, 2 not said, 1 weak; what it is the strength of)."""
    match = _STRENGTH.search(text)
    stem = " ".join(_STRENGTH.sub(" ", text).split())
    if not match:
        return 2, stem
    return (3 if match[1] else 1), stem
