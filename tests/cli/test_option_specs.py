import pytest

from saepd.cli import COMMANDS
from saepd.cli.command import load_command
from saepd.cli.option_specs import options_of


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    for option in options_of(load_command(name).options):
        assert option.help.endswith((".", ":")), option
        assert option.help[0].isupper() or option.help[0] in "{`.", option


@pytest.mark.parametrize("name", COMMANDS)
def test_names_of_options_differ(name):
    names = [option.name for option in options_of(load_command(name).options)]
    assert len(set(names)) == len(names)
