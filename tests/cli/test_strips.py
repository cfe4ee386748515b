import io

import pytest
import rich.console

from saepd.branches.writing.strip import Piece
from saepd.cli.strips import show_strips

STRIPS = {
    "base [red]": [Piece("plain", 0.0), Piece(" [bold]moved[/]", 0.7)],
    "steered": [Piece(" a", 0.05), Piece("\n<b>", 0.2)],
}


@pytest.fixture
def shown(monkeypatch):
    """What is printed, on a terminal or not."""

    def shown(terminal):
        out = io.StringIO()
        console = rich.console.Console(
            file=out, force_terminal=terminal, color_system="256" if terminal else None, width=80
        )
        monkeypatch.setattr(rich.console, "Console", lambda: console)
        show_strips(STRIPS)
        return out.getvalue()

    return shown


def test_tokens_are_shaded_by_how_far_they_moved(shown):
    text = shown(terminal=True)
    moved, still = text.index(" [bold]moved[/]"), text.index("plain")
    assert text[:moved].endswith("m")
    assert not text[:still].endswith("m")
    assert "0.02 and more" in text


def test_without_a_terminal_nothing_is_coloured_and_nothing_is_markup(shown):
    text = shown(terminal=False)
    assert "\x1b" not in text
    for part in ("base [red]", "plain [bold]moved[/]", "<b>"):
        assert part in text
    assert "most moved in base [red]: ' [bold]moved[/]' 0.70, 'plain' 0.00" in text
    assert r"most moved in steered: '\n<b>' 0.20, ' a' 0.05" in text
