"""A command's dataclass out of the command line, and of the file that --config names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import MISSING, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from saepd.cli.command import Command
from saepd.cli.config_file import read_config_file
from saepd.cli.fields import holds_names
from saepd.cli.help import HelpPage
from saepd.cli.option_specs import Option, options_of
from saepd.common.errors import InputError
from saepd.common.messages import shortened

_CONFIG_HELP = (
    "YAML or JSON file of options, under their names; what the command line gives counts instead."
)


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

    def build(*given: Any, **values: Any) -> Any:
        bound = signature.bind(*given, **values)
        names = frozenset(bound.arguments) | set(settings)
        bound.apply_defaults()
        values_by_path = {option.path: bound.arguments[option.name] for option in options}
        return _build(command.options, (), values_by_path, names)

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
    main = Group("Options", sort_key=0)
    parameters.append(
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, Parameter(help=_CONFIG_HELP, group=main)],
        )
    )
    signature = inspect.Signature(parameters)
    build.__signature__ = signature  # type: ignore[attr-defined]
    build.__doc__ = None
    return build


def _shown(value: Any) -> str:
    """A default as it would be written on the command line."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _group(option: Option, order: Mapping[str, int], headings: Sequence[str]) -> Group:
    if option.name in order or not option.group:
        return Group("Options", sort_key=0)
    return Group(option.group, sort_key=1 + headings.index(option.group))


def _build(
    kind: type, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any], names: Set[str]
) -> Any:
    """The dataclass with these values, and the nested ones of it."""
    hints: dict[str, Any] = get_type_hints(kind)
    field_values: dict[str, Any] = {}
    for one in fields(kind):
        here = (*path, one.name)
        if holds_names(one):
            field_values[one.name] = names
        elif is_dataclass(hints[one.name]):
            field_values[one.name] = _build(hints[one.name], here, values, names)
        else:
            field_values[one.name] = values[here]
    return kind(**field_values)


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
        if error.argument.index is not None:
            # It stands for itself, without a flag in front of it.
            name = name.removeprefix("--").upper()
        return f"{name} is missing: give it, as --help shows"
    return " ".join(str(error).split())
