import re

import pytest

from saepd.cli import COMMANDS, main
from saepd.cli.command import load_command
from saepd.cli.option_specs import options_of


@pytest.fixture
def shown(capsys, monkeypatch):
    """The help of a command in a terminal of 80 columns."""

    def shown(name, flag):
        monkeypatch.setenv("COLUMNS", "80")
        assert main([*name.split(), flag]) == 0
        return capsys.readouterr().out

    return shown


def flags(text):
    """The options that help lists, those of the examples left out."""
    return set(re.findall(r"^  (--[a-z0-9-]+|[A-Z]+)\b", text.partition("examples:")[0], re.M))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_is_in_words_and_fits_the_terminal(shown, name, flag):
    text = shown(name, flag)
    assert max(map(len, text.splitlines())) <= 80
    # No class, no attribute, no value of Python.
    described = text.partition("examples:")[0]
    assert not re.search(r"Config\b|\w(Options|Config)\b", described)
    assert not re.search(r"\b(None|True|False)\b|``|`saepd\.|<\w+|\['", described)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_all_shows_every_option_and_help_the_first(shown, name):
    command = load_command(name)
    options = options_of(command.options)
    wanted = {option.name.upper() if option.positional else option.flag for option in options}
    few, everything = flags(shown(name, "--help")), flags(shown(name, "--help-all"))
    on = {"--no-" + option.name.replace("_", "-") for option in options if option.default is True}
    assert everything | {"--config"} == {
        f"--no-{flag[2:]}" if f"--no-{flag[2:]}" in on else flag for flag in wanted
    } | {"--config"}
    assert len(few) == len(command.first) + 1
    assert few <= everything
    if len(options) > len(command.first):
        n = len(options) - len(command.first)
        assert f"{n} more options: saepd {name} --help-all" in shown(name, "--help")
