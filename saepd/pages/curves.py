"""Pictures of how much confidence is worth: reliability, risk against coverage, error against cost.

Each takes several panels, one a task, and gives a plotly figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from saepd.metrics.calibration import reliability_diagram
from saepd.metrics.distributions import Distributions
from saepd.metrics.selective import risk_coverage_curve

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#5f4b8b", "#444444")


class Curve(NamedTuple):
    """One line of a panel."""

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    size: Float[np.ndarray, " points"] | None = None


def reliability_figure(
    panels: Mapping[str, tuple[Mapping[str, Distributions], Sequence[int]]], n_bins: int = 10
) -> Figure:
    """Confidence against accuracy in bins of equal mass; the area of a point is its bin's size.

    Args:
        panels: Title -> distributions by method, and the labels.
        n_bins: Number of bins that each method's questions are put into.
    """
    drawn: dict[str, list[Curve]] = {}
    for title, (predicted, labels) in panels.items():
        drawn[title] = []
        for name, distributions in predicted.items():
            bins = reliability_diagram(distributions, labels, n_bins=n_bins, binning="equal-mass")
            size = 6 + 20 * np.sqrt(bins.n_questions / bins.n_questions.sum())
            drawn[title].append(Curve(name, bins.confidence, bins.accuracy, size))
    figure = _figure(drawn, "confidence", "accuracy", markers=True)
    for column in range(1, len(panels) + 1):
        line = {"color": "#bbbbbb", "dash": "dot"}
        figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line, row=1, col=column)
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[-0.03, 1.03])
    return figure


def risk_coverage_figure(
    panels: Mapping[str, tuple[Mapping[str, ArrayLike], ArrayLike]],
) -> Figure:
    """Mean loss of the surest questions against how many of all are answered.

    Args:
        panels: Title -> uncertainties by method, and the losses of the same questions.
    """
    drawn: dict[str, list[Curve]] = {}
    for title, (uncertainties, losses) in panels.items():
        curves = {name: risk_coverage_curve(own, losses) for name, own in uncertainties.items()}
        drawn[title] = [Curve(name, c.coverage, c.risk) for name, c in curves.items()]
    return _figure(drawn, "coverage", "risk", markers=False)


def curves_figure(panels: Mapping[str, Sequence[Curve]], x: str, y: str) -> Figure:
    """Lines, such as risk against coverage."""
    return _figure(panels, x, y, markers=False)


def _figure(panels: Mapping[str, Sequence[Curve]], x: str, y: str, *, markers: bool) -> Figure:
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=len(panels), subplot_titles=list(panels), horizontal_spacing=0.06)
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    shown: set[str] = set()
    for column, curves in enumerate(panels.values(), 1):
        for curve in curves:
            colour = COLOURS[names.index(curve.name) % len(COLOURS)]
            figure.add_trace(
                Scatter(
                    x=np.asarray(curve.x),
                    y=np.asarray(curve.y),
                    name=curve.name,
                    legendgroup=curve.name,
                    showlegend=curve.name not in shown,
                    mode="lines+markers" if markers else "lines",
                    line={"color": colour},
                    marker={"size": curve.size, "color": colour} if markers else None,
                ),
                row=1,
                col=column,
            )
            shown.add(curve.name)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, col=1)
    figure.update_layout(
        template="plotly_white",
        width=330 * len(panels) + 60,
        height=420,
        margin={"t": 40, "r": 20, "l": 60},
        legend={"orientation": "h", "y": -0.25},
    )
    return figure
