"""How the help of a command looks: its options in groups, each with what it does beside it."""

from __future__ import annotations

import textwrap
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

_INDENT = 2
# Options that are longer than this stand on a line of their own.
_LABEL_WIDTH = 24


class HelpPage:
    """Cyclopts' help formatter of this command line: plain text that wraps between words."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """The usage line."""
        lines = textwrap.wrap(str(usage), options.max_width, subsequent_indent=" " * 11)
        _print(console, "\n".join(lines) + "\n")

    def render_description(self, console: Console, options: ConsoleOptions, text: Any) -> None:
        """What the command does."""
        _print(console, textwrap.fill(_plain(text), options.max_width) + "\n")

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One group of options."""
        if panel.format == "command" or not panel.entries:
            return
        _print(console, f"{panel.title}:")
        for entry in panel.entries:
            _print(console, _lines(entry, options.max_width))
        _print(console, "")


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _lines(entry: HelpEntry, width: int) -> str:
    """An option and what it does, in two columns."""
    label = entry.positional_label or _label(entry)
    indent = " " * (_INDENT + _LABEL_WIDTH)
    lines = textwrap.wrap(
        _description(entry), width, initial_indent=indent, subsequent_indent=indent
    )
    if len(label) < _LABEL_WIDTH and lines:
        lines[0] = " " * _INDENT + label.ljust(_LABEL_WIDTH) + lines[0].lstrip()
        return "\n".join(lines)
    return "\n".join([" " * _INDENT + label, *lines])


def _label(entry: HelpEntry) -> str:
    # Only where a flag is set already does the word that unsets it say something.
    names = entry.negative_names if entry.default == "True" else entry.positive_names
    return f"{names[0]} {entry.metavar}" if entry.metavar else names[0]


def _description(entry: HelpEntry) -> str:
    description = _plain(entry.description)
    if entry.required:
        return f"{description} (must be given)"
    if entry.default in (None, "None", "False", "True", ""):
        return description
    return f"{description} (default: {' '.join(entry.default.split())})"


def _plain(description: Any) -> str:
    """The words of what rich would print."""
    console = Console(width=10_000, no_color=True)
    with console.capture() as capture:
        console.print(description, end="")
    return " ".join(capture.get().split())
