"""YAML as it was meant: what YAML 1.1 would change without a word is refused in one sentence.

To YAML 1.1, and so to PyYAML, ``NO`` is false, ``010`` is 8, ``1:30`` is 90, and of two entries
with the same key the last one counts. Here a plain value is a number where it reads as one in
decimals (``1e-1`` included, which YAML 1.1 takes for text), a boolean or null where it says so
(``None`` included, as W&B's agents write it), and text else, dates included. Whatever people and
YAML may read differently is named with its place, what YAML makes of it, and what to write instead.
Aliases and tags, which a sweep has no use for, are refused, so that a small file cannot grow large.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError, first_line
from saepd.common.messages import shortened

if TYPE_CHECKING:
    from yaml.events import Event, ScalarEvent

_MOST_LEVELS = 16
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WHOLE = re.compile(r"[-+]?\d+")
_KEYWORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "~", "None")),
}
# What YAML 1.1 reads as something else than the text it seems to be, and what it makes of it.
_SURPRISES = (
    (re.compile(r"(?i:yes|on)"), "true"),
    (re.compile(r"(?i:no|off)"), "false"),
    (re.compile(r"Null|NULL"), "null"),
    (re.compile(r"[-+]?0[0-9_]+"), "a number in base 8"),
    (re.compile(r"[-+]?0o[0-7_]+"), "text, or a number in base 8"),
    (re.compile(r"[-+]?0b[01_]+"), "a number in base 2"),
    (re.compile(r"[-+]?0x[0-9a-fA-F_]+"), "a number in base 16"),
    (re.compile(r"[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.\d*)?"), "a number in base 60"),
    (re.compile(r"[-+]?[\d._]*\d_[\d._]*"), "a number without its underscores"),
    (re.compile(r"[-+]?\.(?i:inf)"), "infinity"),
    (re.compile(r"\.(?i:nan)"), "not a number"),
)


@dataclass
class _Level:
    """A mapping or a list that is being read; a mapping's key waits for its value."""

    content: dict[str, Any] | list[Any]
    place: str
    key: str | None = None


def read_yaml(text: str, source: str) -> Any:
    """The one YAML document of a text.

    Args:
        text: The document.
        source: What it is called in messages, such as the file's path.

    Returns:
        Mappings with text as keys, lists, text, numbers, booleans and None.

    Raises:
        InputError: no YAML, several documents, a key that comes twice, aliases or tags, too many
            levels, or a value that YAML reads differently than people do; place and line are named.
    """
    import yaml

    try:
        return _document(yaml.parse(text, Loader=yaml.SafeLoader), source, "\n" in text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        message = str(problem or first_line(error))
        if r"'\t'" in message:
            message = "a tab stands where YAML wants spaces: indent with spaces"
        raise InputError(f"{source}{where} is not YAML: {message}") from error


def _document(events: Iterable[Any], source: str, has_lines: bool) -> Any:
    """The value that events make; places are told with their line where there are several."""
    import yaml

    root: list[Any] = []
    levels = [_Level(root, "")]
    for event in events:
        where = f"{source}, line {event.start_mark.line + 1}" if has_lines else source
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InputError(
                f"{where}: {'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor} is a "
                "YAML alias, which is not read here: write the values out, or put the text in "
                "quotes"
            )
        if isinstance(event, yaml.DocumentStartEvent) and root:
            raise InputError(f"{where}: a second document starts: write one")
        if isinstance(event, yaml.CollectionEndEvent):
            levels.pop()
        elif isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            _add(event, levels, where)
    return root[0] if root else None


def _add(event: Event, levels: list[_Level], where: str) -> None:
    """Put what begins with an event in its place."""
    import yaml

    level = levels[-1]
    content = level.content
    if isinstance(content, dict) and level.key is None:
        level.key = _key(event, content, where)
        return
    place = _place(level)
    here = f"{where}: {place}" if place else where
    if isinstance(event, yaml.ScalarEvent):
        new = _scalar(event, here)
    else:
        if tag := getattr(event, "tag", None):
            raise InputError(f"{here} has the YAML tag {shortened(tag)}: leave it out")
        if len(levels) > _MOST_LEVELS:
            raise InputError(f"{here} lies more than {_MOST_LEVELS} levels deep: write it flat")
        new = {} if isinstance(event, yaml.MappingStartEvent) else []
        levels.append(_Level(new, place))
    if isinstance(content, dict):
        assert level.key is not None
        content[level.key], level.key = new, None
    else:
        content.append(new)


def _key(event: Event, content: dict[str, Any], where: str) -> str:
    import yaml

    if not isinstance(event, yaml.ScalarEvent):
        raise InputError(f"{where}: a list or mapping stands as a key: keys are names")
    name = _text(event, where)
    if event.style is None and name == "<<":
        raise InputError(f"{where}: << merges mappings, which is not read here: write them out")
    if name in content:
        raise InputError(f"{where}: the key {shortened(name)} comes twice: give it once")
    return name


def _place(level: _Level) -> str:
    """What the value that comes next is called, such as ``parameters.k.values, entry 2``."""
    if isinstance(level.content, list):
        return f"{level.place}, entry {len(level.content) + 1}" if level.place else ""
    name = str(level.key)
    name = name if len(name) <= 40 else name[:37] + "..."
    return f"{level.place}.{name}" if level.place else name


def _scalar(event: ScalarEvent, where: str) -> Any:
    if event.tag is not None:
        raise InputError(f"{where} has the YAML tag {shortened(event.tag)}: leave it out")
    text = _text(event, where)
    if event.style is not None:
        return text
    if text in _KEYWORDS:
        return _KEYWORDS[text]
    if not text:
        raise InputError(f"{where} is empty, which YAML reads as null: write a value, or null")
    for pattern, meaning in _SURPRISES:
        if pattern.fullmatch(text):
            raise InputError(
                f"{where} is {text[:40]}, which YAML reads as {meaning}: write "
                f"{_instead(text, meaning)}"
            )
    if not _NUMBER.fullmatch(text):
        return text
    if _WHOLE.fullmatch(text):
        if len(text) > 300:
            raise InputError(f"{where} is a number of {len(text)} digits: write a smaller one")
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"{where} is {text[:40]}, beyond any number: write a smaller one")
    return number


def _text(event: ScalarEvent, where: str) -> str:
    """The text of a scalar; JSON's two escapes of one character are that character."""
    try:
        return event.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: half a surrogate pair is no character: write Unicode"
        ) from error


def _instead(text: str, meaning: str) -> str:
    """What would be right in the place of a value that people and YAML read differently."""
    quoted = f'"{text[:40]}" in quotes for the text'
    if meaning in ("true", "false", "null"):
        return f"{quoted}, or {meaning}"
    if meaning in ("infinity", "not a number"):
        return f"a number, or {quoted}"
    return f"the number in plain decimals, or {quoted}"
