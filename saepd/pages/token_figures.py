"""Pictures of texts, token by token, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from saepd.branches.writing.compare import STRONG_KL, Compared
from saepd.branches.writing.trace import Generated
from saepd.common.errors import InputError
from saepd.features.index.text_page import TextPage

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TEMPLATE = "plotly_white"
_TOKENS_A_LINE = 12
_LABEL = 40


def strip_figure(compared: Compared) -> Figure:
    """Base and steered text token by token, coloured by KL(base || steered) in nats.

    Args:
        compared: Both texts, from `saepd.compare`.
    """
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    strips = compared.pieces()
    figure = make_subplots(rows=len(strips), cols=1, subplot_titles=list(strips))
    n_lines = 0
    for row, pieces in enumerate(strips.values(), 1):
        starts = range(0, max(1, len(pieces)), _TOKENS_A_LINE)
        lines = [pieces[i : i + _TOKENS_A_LINE] for i in starts]
        n_lines += len(lines)
        figure.add_trace(
            Heatmap(
                z=[[p.value for p in line] for line in lines],
                text=[[_plain(p.text) for p in line] for line in lines],
                texttemplate="%{text}",
                hovertemplate="%{text}: %{z:.3f} nats<extra></extra>",
                coloraxis="coloraxis",
            ),
            row=row,
            col=1,
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure.update_layout(
        template=_TEMPLATE,
        height=120 + 40 * n_lines,
        coloraxis={"colorscale": "Oranges", "cmin": 0, "cmax": STRONG_KL},
    )


def trace_figure(text: Generated, names: Sequence[str] = ()) -> Figure:
    """How far every branch is from the base at each token of a text, as a heat map of KL in nats.

    Args:
        text: A text that was written with its trace.
        names: Names of the steered branches, in their order; numbers where none are given.

    Raises:
        InputError: a text without a trace, or not one name for each branch.
    """
    if not text.steps:
        raise InputError("this text was written without a trace: give generate_batch trace=True")
    n = len(text.steps[0].kl)
    names = list(names) or [f"branch {i}" for i in range(1, n + 1)]
    if len(names) != n:
        raise InputError(f"{len(names)} names for {n} branches: give one for each")
    from plotly.graph_objects import Figure, Heatmap

    tokens = [_plain(step.text) for step in text.steps]
    figure = Figure(
        Heatmap(
            z=[[step.kl[i] for step in text.steps] for i in range(n)],
            text=[tokens] * n,
            hovertemplate="%{text}: %{z:.3f} nats<extra></extra>",
            colorscale="Oranges",
            zmin=0,
            xgap=1,
            ygap=1,
            colorbar={"title": "KL, nats"},
        )
    )
    figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=tokens, tickangle=-60)
    figure.update_yaxes(tickvals=list(range(n)), ticktext=names, autorange="reversed")
    return figure.update_layout(
        template=_TEMPLATE,
        title="KL of every branch from the base, at each token of the merged text",
        height=200 + 32 * n,
    )


def text_figure(page: TextPage) -> Figure:
    """The latents of a text by token, as a heat map of shares of their largest activations.

    Args:
        page: The text as it was read, from `saepd.read_text`.

    Raises:
        InputError: a text in which nothing unusual fires.
    """
    from plotly.graph_objects import Figure, Heatmap

    if not len(page.latents):
        raise InputError("no latent fires in this text more than usual: there is nothing to draw")
    tokens = [_plain(token) for token in page.tokens]
    names = [f"{one.latent}: {_plain(one.label)[:_LABEL]}" for one in page.latents]
    figure = Figure(
        Heatmap(
            # What never fired in the index has no largest; it is drawn as far as the scale goes.
            z=np.minimum(page.shares, 1.0),
            customdata=page.activations,
            text=[tokens] * len(names),
            hovertemplate="%{text}: activation %{customdata:.2f}, share %{z:.2f}<extra></extra>",
            colorscale="Oranges",
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar={"title": "share of<br>the largest"},
        )
    )
    figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=tokens, tickangle=-60)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True
    )
    return figure.update_layout(
        template=_TEMPLATE,
        title="latents that fire in this text more than usual",
        height=180 + 28 * len(names),
    )


def _plain(text: str) -> str:
    """Text in which angle brackets are no markup to plotly."""
    return text.replace("<", "&lt;")
