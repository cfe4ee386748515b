"""The options of a command: every field of its dataclass, and of those that it nests, is one.

Fields become options under their own names; what is said of a field in ``Attributes:`` is its help,
and the first line of a nested dataclass heads the group of its options.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

from saepd.cli.fields import holds_names, is_argument


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: The option without dashes, with underscores between its words.
        path: Names of the fields that lead to it from the command's dataclass.
        kind: Type of its value.
        default: Its value where it is not given; MISSING if it must be given.
        help: What the option does.
        group: Heading of the group it is in; empty for the command's own.
        positional: Whether its value may stand without its name.
    """

    name: str
    path: tuple[str, ...]
    kind: Any
    default: Any
    help: str
    group: str
    positional: bool

    @property
    def flag(self) -> str:
        """How it is written on the command line; a name that Python keeps for itself ends in _."""
        return f"--{self.name.strip('_').replace('_', '-')}"

    @property
    def metavar(self) -> str | None:
        """What stands for the value in the help; None for a flag."""
        kind = self.kind
        if NoneType in get_args(kind):
            [kind] = [one for one in get_args(kind) if one is not NoneType]
        if get_origin(kind) in (list, tuple):
            inner = [one for one in get_args(kind) if one is not ...]
            return f"{_METAVARS.get(inner[0], 'TEXT')}..."
        if get_origin(kind) is Literal:
            return "|".join(get_args(kind))
        return _METAVARS.get(kind, "TEXT")


_METAVARS = {bool: None, int: "N", float: "X", str: "TEXT", Path: "PATH"}


def options_of(kind: type) -> list[Option]:
    """Every option of a command's dataclass; a name that is there twice is told apart by its group.

    Args:
        kind: The dataclass.
    """
    options = list(_walk(kind, (), "", MISSING))
    names = Counter(option.name for option in options)
    return [
        option
        if names[option.name] == 1 or len(option.path) == 1
        else replace(option, name="_".join(option.path[-2:]))
        for option in options
    ]


def _walk(kind: type, path: tuple[str, ...], group: str, default: Any) -> Iterator[Option]:
    hints = get_type_hints(kind)
    docstring = parse_docstring(inspect.getdoc(kind) or "", DocstringStyle.GOOGLE)
    helps = {one.arg_name: " ".join((one.description or "").split()) for one in docstring.params}
    for one in fields(kind):
        value = _default(one) if default is MISSING else getattr(default, one.name)
        here = (*path, one.name)
        if holds_names(one):
            continue
        if is_dataclass(hints[one.name]):
            nested: Any = hints[one.name]
            heading = (inspect.getdoc(nested) or "").splitlines()[0].rstrip(".").partition(";")[0]
            yield from _walk(nested, here, heading, value)
            continue
        yield Option(
            name=one.name,
            path=here,
            kind=hints[one.name],
            default=value,
            help=_in_words(helps.get(one.name, "")),
            group=group,
            positional=is_argument(one),
        )


def _in_words(text: str) -> str:
    """A description for who has never seen Python."""
    return text.replace("``", "").replace(" if None", " if not given")


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
