"""What a command is made of: its options, the first of them, examples, and what it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from saepd.cli import COMMANDS


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: The words that start it.
        summary: What the command does, in one line.
        options: Dataclass of its options.
        first: Names of the options that most people need, in the order of the help.
        examples: Command lines to copy, and what to know about them.
        run: Does it.
    """

    name: str
    summary: str
    options: type
    first: Sequence[str]
    examples: str
    run: Callable[[Any], None]


def load_command(name: str) -> Command:
    """The command with this name, out of the module of that name."""
    module = import_module(f"saepd.cli.{re.sub('[- ]', '_', name)}")
    return Command(name, COMMANDS[name], module.Options, module.FIRST, module.EXAMPLES, module.run)
