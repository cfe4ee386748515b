"""Options of a command out of its dataclass: every field of it, and of what it nests, is one.

A command's options are a dataclass. Its fields, and those of the configuration dataclasses in it,
become options under their own names; what is said of a field in ``Attributes:`` is its help, and
the first line of a nested dataclass heads the group of its options.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError
from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

from saepd.cli.command import Command
from saepd.cli.config_file import read_config_file
from saepd.cli.fields import holds_names, is_argument
from saepd.cli.help import HelpPage
from saepd.common.errors import InputError
from saepd.common.messages import shortened

T = TypeVar("T")

_CONFIG_HELP = (
    "YAML or JSON file of options, under their names; options of the command line go before its."
)


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: The option without dashes, with underscores between its words.
        path: Names of the fields that lead to it from the command's dataclass.
        kind: Type of its value.
        default: Its value where it is not given; MISSING if it must be given.
        help: What it does.
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
    found = list(_walk(kind, (), "", MISSING))
    names = Counter(option.name for option in found)
    return [
        option
        if names[option.name] == 1 or len(option.path) == 1
        else replace(option, name="_".join(option.path[-2:]))
        for option in found
    ]


def _walk(kind: type, path: tuple[str, ...], group: str, default: Any) -> Iterator[Option]:
    hints = get_type_hints(kind)
    told = parse_docstring(inspect.getdoc(kind) or "", DocstringStyle.GOOGLE)
    helps = {one.arg_name: " ".join((one.description or "").split()) for one in told.params}
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


def build_app(
    command: Command, *, everything: bool, settings: Mapping[str, Any] | None = None
) -> App:
    """The parser of a command; calling it with arguments gives the command's dataclass.

    Args:
        command: The command.
        everything: Whether its help shows all options, or those that most people need.
        settings: Values, by name, of options that the command line does not give.
    """
    options = [
        replace(option, default=(settings or {}).get(option.name, option.default))
        for option in options_of(command.options)
    ]
    unknown = set(command.first) - {option.name for option in options}
    assert not unknown, f"{command.name} has no options {unknown}"
    return App(
        name=command.name.split()[-1],
        help=command.summary,
        help_flags=("--help", "-h", "--help-all"),
        version_flags=(),
        help_format="plaintext",
        help_formatter=HelpPage(),
        help_epilogue=None,
        usage=_usage(command, options),
        default_command=_function(command, options, everything, settings or {}),
        default_parameter=Parameter(consume_multiple=True),
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )


def _usage(command: Command, options: Sequence[Option]) -> str:
    words = [f"usage: saepd {command.name}"]
    for option in sorted(options, key=lambda option: not option.positional):
        required = option.default is MISSING
        if option.positional:
            words.append(option.name.upper() if required else f"[{option.name.upper()}]")
        elif required:
            words.append(f"{option.flag} {option.metavar}")
    return " ".join([*words, "[options]"])


def _function(
    command: Command, options: Sequence[Option], everything: bool, settings: Mapping[str, Any]
) -> Callable[..., Any]:
    """A function that takes every option by name and makes the command's dataclass of them."""

    def made(*given: Any, **values: Any) -> Any:
        bound = signature.bind(*given, **values)
        names = frozenset(bound.arguments) | set(settings)
        bound.apply_defaults()
        found = {option.path: bound.arguments[option.name] for option in options}
        return _made(command.options, (), found, names)

    order = {name: number for number, name in enumerate(command.first)}
    headings = list(dict.fromkeys(option.group for option in options))
    parameters = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if option.positional
            else inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if option.default is MISSING else option.default,
            annotation=Annotated[
                option.kind,
                Parameter(
                    help=option.help,
                    metavar=option.metavar,
                    show_default=_shown,
                    show=everything or option.name in order,
                    group=_group(option, order, headings),
                ),
            ],
        )
        for option in sorted(
            options, key=lambda o: (not o.positional, order.get(o.name, len(order)))
        )
    ]
    own = Group("Options", sort_key=0)
    parameters.append(
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, Parameter(help=_CONFIG_HELP, group=own)],
        )
    )
    signature = inspect.Signature(parameters)
    made.__signature__ = signature  # type: ignore[attr-defined]
    made.__doc__ = None
    return made


def _shown(value: Any) -> str:
    """A default as it would be written on the command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _group(option: Option, order: Mapping[str, int], headings: Sequence[str]) -> Group:
    if option.name in order or not option.group:
        return Group("Options", sort_key=0)
    return Group(option.group, sort_key=1 + headings.index(option.group))


def _made(
    kind: type, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any], names: Set[str]
) -> Any:
    """The dataclass with these values, and the nested ones of it."""
    hints: dict[str, Any] = get_type_hints(kind)
    found: dict[str, Any] = {}
    for one in fields(kind):
        here = (*path, one.name)
        if holds_names(one):
            found[one.name] = names
        elif is_dataclass(hints[one.name]):
            found[one.name] = _made(hints[one.name], here, values, names)
        else:
            found[one.name] = values[here]
    return kind(**found)


def parse(command: Command, arguments: Sequence[str]) -> Any:
    """The command's dataclass, from the command line and from the file that --config names.

    Asked for help, it prints that, and there is nothing to run: None.

    Raises:
        InputError: an unknown option, a value that cannot be read, or one that is missing.
    """
    if any(word in ("-h", "--help", "--help-all") for word in arguments):
        build_app(command, everything="--help-all" in arguments).help_print([])
        print(_footer(command, arguments))
        return None
    path = _config_path(arguments)
    kinds = {option.name: option.kind for option in options_of(command.options)}
    settings = {} if path is None else read_config_file(path, kinds)
    app = build_app(command, everything=True, settings=settings)
    try:
        return app(list(arguments))
    except CycloptsError as error:
        raise InputError(_sentence(error)) from error


def _config_path(arguments: Sequence[str]) -> Path | None:
    for word, following in pairwise([*arguments, ""]):
        if word == "--config" and following:
            return Path(following)
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    return None


def _footer(command: Command, arguments: Sequence[str]) -> str:
    n_hidden = len(options_of(command.options)) - len(command.first)
    more = f"{n_hidden} more options: saepd {command.name} --help-all\n\n"
    return ("" if "--help-all" in arguments or n_hidden < 1 else more) + (
        f"examples:\n{command.examples}"
    )


def _sentence(error: CycloptsError) -> str:
    """What was wrong, in one sentence."""
    if isinstance(error, UnusedCliTokensError):
        left = ", ".join(map(shortened, error.unused_tokens or ()))
        return f"{left} belongs to no option: quote what has spaces, and see --help"
    if isinstance(error, MissingArgumentError) and error.argument and not error.argument.tokens:
        name = error.argument.name
        return f"{name} is missing: give it, as --help shows"
    return " ".join(str(error).split())
