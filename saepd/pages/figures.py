"""Pictures of features, of steering and of answers, as plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from saepd.branches.dose_response import DoseResponse
from saepd.common.errors import InputError
from saepd.common.messages import nearest
from saepd.features.encode import Pairs
from saepd.features.index.latent_page import LatentPage
from saepd.features.select import Features, overlap
from saepd.features.table import FeatureTable
from saepd.pages.curves import COLOURS
from saepd.readout.option_scores import OptionScores

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TEMPLATE = "plotly_white"
# Blue, white, red: what is more and what is less can be told apart by colour-blind people too.
_DIVERGING = "RdBu_r"
_LABEL = 40


def effects_figure(pairs: Pairs, features: Sequence[Features]) -> Figure:
    """Every chosen latent's effect in every perspective's feedback, as a heat map.

    An effect is the mean difference from the anchor over its standard deviation; unit-free.

    Args:
        pairs: The encoded feedback.
        features: Latents chosen for each perspective.

    Raises:
        InputError: no features.
    """
    if not features:
        raise InputError("there are no features to draw: choose some with select_features")
    latents = list(dict.fromkeys(i for selected in features for i in selected.latents.tolist()))
    chosen = pairs.latents[:, latents]
    effects = {}
    for name in pairs.perspectives:
        rows = chosen[pairs.of(name)]
        effects[name] = (rows.mean(0) / (rows.std(0) + 1e-6)).tolist()
    return _heat_map(
        np.array(list(effects.values())).T,
        x=list(effects),
        y=[f"latent {latent}" for latent in latents],
        title="effect of each latent in each perspective's feedback",
        middle=0.0,
    )


def intervals_figure(table: FeatureTable) -> Figure:
    """Effects of the strongest latents in every perspective's feedback, with 95% intervals.

    An effect is the mean difference from the anchor over its standard deviation; unit-free.

    Args:
        table: The table of latents, from `saepd.feature_table`.

    Raises:
        InputError: a table without latents.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = list({row.latent: row for row in table.rows}.values())
    if not rows:
        raise InputError("the table holds no latents to draw")
    names = [f"{row.latent}: {row.label or ' '.join(row.tokens[:4])}"[:_LABEL] for row in rows]
    figure = Figure()
    for i, perspective in enumerate(rows[0].effect):
        middle = [row.effect[perspective] for row in rows]
        # Of a single question there is no interval.
        ends = [row.interval.get(perspective) or 2 * (row.effect[perspective],) for row in rows]
        # Side by side around each latent's own line.
        shift = 0.24 * (i - (len(rows[0].effect) - 1) / 2)
        figure.add_trace(
            Scatter(
                x=middle,
                y=[place + shift for place in range(len(rows))],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - x for (_, high), x in zip(ends, middle, strict=True)],
                    "arrayminus": [x - low for (low, _), x in zip(ends, middle, strict=True)],
                },
                name=perspective.replace("<", "&lt;"),
                mode="markers",
                marker={"color": COLOURS[i % len(COLOURS)]},
            )
        )
    figure.add_vline(x=0, line_dash="dot")
    figure.update_xaxes(title_text="effect, with its 95% interval over questions")
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[name.replace("<", "&lt;") for name in names],
        autorange="reversed",
        automargin=True,
    )
    return figure.update_layout(template=_TEMPLATE, height=160 + 34 * len(rows))


def overlap_figure(features: Sequence[Features]) -> Figure:
    """How far every two perspectives share their latents with the same sign, as a heat map.

    Args:
        features: The latents chosen for each perspective.

    Raises:
        InputError: fewer than two perspectives.
    """
    if len(features) < 2:
        raise InputError("an overlap is of two perspectives or more: give the features of each")
    names = [selected.perspective for selected in features]
    shares = np.eye(len(names))
    for (one, other), share in overlap(features).items():
        i, j = names.index(one), names.index(other)
        shares[i, j] = shares[j, i] = share.same
    title = "share of latents that two perspectives have in common, with the same sign"
    figure = _heat_map(shares, x=names, y=names, title=title)
    return figure.update_traces(zmin=0, zmax=1)


def activations_figure(pairs: Pairs, latent: int, perspective: str) -> Figure:
    """How strongly a latent fires in one perspective's feedback and in all others'.

    Args:
        pairs: The encoded feedback.
        latent: Id of the latent.
        perspective: Name of the perspective that is set against the others.

    Raises:
        InputError: an unknown perspective, or a latent that the SAE does not have.
    """
    from plotly.graph_objects import Figure, Histogram

    if perspective not in pairs.perspectives:
        raise InputError(
            f"no feedback is of {perspective!r}: {nearest(perspective, pairs.perspectives)}"
        )
    d_sae = pairs.positive_latents.shape[1]
    if not 0 <= latent < d_sae:
        raise InputError(f"latent {latent} is none of the SAE's: they are 0..{d_sae - 1}")
    of_perspective = torch.zeros(len(pairs.rows), dtype=torch.bool)
    of_perspective[pairs.of(perspective)] = True
    values = pairs.positive_latents[:, latent]
    top = float(values.max()) or 1.0
    figure = Figure()
    for name, rows, colour in (
        (perspective, of_perspective, COLOURS[1]),
        ("all others", ~of_perspective, COLOURS[0]),
    ):
        figure.add_trace(
            Histogram(
                x=values[rows].tolist(),
                name=name,
                histnorm="probability",
                xbins={"start": 0.0, "end": top * 1.001, "size": top / 20},
                marker={"color": colour},
                opacity=0.6,
            )
        )
    figure.update_xaxes(title_text="activation where the answer is read")
    figure.update_yaxes(title_text="share of rows")
    return figure.update_layout(
        template=_TEMPLATE, barmode="overlay", title=f"latent {latent}: {perspective} and others"
    )


def dose_figure(response: DoseResponse) -> Figure:
    """What steering does and what it costs, against its strength.

    Args:
        response: What was measured at every strength, from `saepd.dose_response`.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    points = sorted(response.points, key=lambda point: point.strength)
    effect = "KL at the prompt, nats" if response.towards is None else "nats gained"
    panels = {
        effect: [point.effect for point in points],
        "KL on neutral text, nats": [point.kl for point in points],
        "repetition": [point.repetition for point in points],
        "perplexity of the text": [point.perplexity for point in points],
    }
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels))
    for column, values in enumerate(panels.values(), 1):
        figure.add_trace(
            Scatter(
                x=[point.strength for point in points],
                y=values,
                mode="lines+markers",
                line={"color": COLOURS[0]},
                showlegend=False,
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="strength")
    return figure.update_layout(template=_TEMPLATE, width=1100, height=320)


def options_figure(
    scores: OptionScores, people: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """Probabilities of the options in every branch, beside what people answered.

    Args:
        scores: What the branches say.
        people: Name of a branch -> shares of the people of that perspective.

    Raises:
        InputError: people of a branch that there is not, or not one share for each option.
    """
    from plotly.graph_objects import Bar, Figure

    frame = scores.frame()
    options = list(dict.fromkeys(frame.option))
    branches = list(dict.fromkeys(frame.branch))
    figure = Figure()
    bars = {name: frame[frame.branch == name].probability.tolist() for name in branches}
    for i, (name, shares) in enumerate(bars.items()):
        colour = COLOURS[i % len(COLOURS)]
        figure.add_trace(Bar(x=options, y=shares, name=name, marker={"color": colour}))
    for name, shares in (people or {}).items():
        if name not in branches:
            raise InputError(f"people of {name!r} answer no branch: {nearest(name, branches)}")
        if len(shares) != len(options):
            raise InputError(
                f"people of {name!r} have {len(shares)} shares, and there are {len(options)} "
                "options"
            )
        colour = COLOURS[branches.index(name) % len(COLOURS)]
        figure.add_trace(
            Bar(
                x=options,
                y=list(shares),
                name=f"{name}, people",
                marker={"color": colour, "pattern": {"shape": "/"}},
            )
        )
    figure.update_yaxes(title_text="probability", range=[0, 1])
    return figure.update_layout(template=_TEMPLATE, barmode="group")


def latent_figure(page: LatentPage) -> Figure:
    """How strongly a latent fires where it does, and how often by its place in the text.

    Args:
        page: The latent's page, from `FeatureIndex.page`.

    Raises:
        InputError: a latent that never fires.
    """
    from plotly.graph_objects import Bar
    from plotly.subplots import make_subplots

    if not page.n_firings:
        raise InputError(f"latent {page.latent} never fires in the texts: there is nothing to draw")
    titles = ["firings by activation", "share of tokens, by tokens before them"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles)
    width = page.quantiles[1.0] / len(page.histogram)
    middles = [(i + 0.5) * width for i in range(len(page.histogram))]
    marker = {"color": COLOURS[0]}
    figure.add_trace(Bar(x=middles, y=page.histogram, width=width, marker=marker), row=1, col=1)
    places = [f"{place}" for place in page.places]
    figure.add_trace(Bar(x=places, y=list(page.places.values()), marker=marker), row=1, col=2)
    figure.update_xaxes(title_text="activation", row=1, col=1)
    figure.update_xaxes(title_text="tokens before, from", type="category", row=1, col=2)
    figure.update_yaxes(tickformat=".2%", row=1, col=2)
    return figure.update_layout(
        template=_TEMPLATE,
        # Angle brackets would be markup to plotly.
        title=f"latent {page.latent}: {page.label}".replace("<", "&lt;"),
        showlegend=False,
        height=340,
        margin={"t": 80},
    )


def _heat_map(
    z: np.ndarray, *, x: list[str], y: list[str], title: str, middle: float | None = None
) -> Figure:
    from plotly.graph_objects import Figure, Heatmap

    colours = {"colorscale": "Oranges"} if middle is None else {"colorscale": _DIVERGING}
    figure = Figure(Heatmap(z=z, x=x, y=y, zmid=middle, texttemplate="%{z:.2f}", **colours))
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return figure.update_layout(
        template=_TEMPLATE, title=title, height=160 + 24 * len(y), margin={"l": 100}
    )
