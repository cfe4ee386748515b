"""Texts side by side in a terminal, each token coloured by a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saepd.branches.writing.strip import Piece

# From each bound on (nats) a darker background: one hue, which colour-blind people tell apart too.
_SHADES = ((0.5, "black on dark_orange3"), (0.1, "black on orange1"), (0.02, "black on wheat1"))
_N_LISTED = 5


def show_strips(strips: Mapping[str, Sequence[Piece]]) -> None:
    """Print texts as columns, tokens shaded by their numbers, and name those with the largest.

    Where standard output is no terminal, nothing is coloured.

    Args:
        strips: Heading -> its text, in pieces.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table()
    texts = []
    for name, pieces in strips.items():
        table.add_column(escape(name), overflow="fold", ratio=1)
        text = Text()
        for piece in pieces:
            text.append(piece.text, style=_shade(piece.value))
        texts.append(text)
    table.add_row(*texts)
    console.print(table)
    if console.is_terminal:
        legend = Text("KL between base and steered, nats: ")
        for bound, style in reversed(_SHADES):
            legend.append(f" {bound:g} and more ", style=style)
        console.print(legend)
    for name, pieces in strips.items():
        console.print(_largest(name, pieces), markup=False, highlight=False, soft_wrap=True)


def _shade(value: float) -> str:
    return next((style for bound, style in _SHADES if value >= bound), "")


def _largest(name: str, pieces: Sequence[Piece]) -> str:
    best = sorted(pieces, key=lambda piece: -piece.value)[:_N_LISTED]
    listed = ", ".join(f"{piece.text!r} {piece.value:.2f}" for piece in best)
    return f"most moved in {name}: {listed or 'nothing was written'}"
