"""``saepd completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saepd.cli.fields import argument

EXAMPLES = """\
  saepd completion bash > ~/.local/share/bash-completion/completions/saepd
  saepd completion zsh > ~/.zfunc/_saepd        (with ~/.zfunc in fpath)
  saepd completion fish > ~/.config/fish/completions/saepd.fish"""

FIRST = ("shell",)


@dataclass(kw_only=True)
class Options:
    """Which shell.

    Attributes:
        shell: The shell that is to complete.
    """

    shell: Literal["bash", "zsh", "fish"] = argument()


def run(options: Options) -> None:
    """Print the script."""
    from cyclopts import App

    from saepd.cli import COMMANDS
    from saepd.cli.command import load_command
    from saepd.cli.parsing import build_app

    root = App(name="saepd", version_flags=(), help_format="plaintext")
    apps = {name: build_app(load_command(name), everything=True) for name in COMMANDS}
    for name, app in apps.items():
        above, _, last = name.rpartition(" ")
        (apps[above] if above else root).command(app, name=last)
    print(root.generate_completion(shell=options.shell))
