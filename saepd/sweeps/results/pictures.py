"""Pictures of a sweep, as plotly figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.files import write_atomically
from saepd.sweeps.point.measure import GAINS
from saepd.sweeps.point.metrics import GOALS
from saepd.sweeps.results.frame import finished, varied

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Green is good, whichever way the metric goes.
_GOOD_IS_LARGE, _GOOD_IS_SMALL = "RdYlGn", "RdYlGn_r"


def parallel_coordinates(frame: pd.DataFrame, metric: str) -> go.Figure:
    """One line a point through the values of its parameters, coloured by the metric."""
    import plotly.graph_objects as go

    points = finished(frame, metric)
    axes: list[dict[str, Any]] = []
    for name in varied(points):
        levels = sorted(points[name].dropna().unique().tolist(), key=_by_size)
        places = {value: i for i, value in enumerate(levels)}
        # By place and not by size, so that 1, 2, 4 and 16 stand apart.
        axes.append(
            {
                "label": name,
                "values": [places.get(value, -1) for value in points[name]],
                "tickvals": list(range(len(levels))),
                "ticktext": [short(value) for value in levels],
            }
            if len(levels) <= 20
            else {"label": name, "values": points[name]}
        )
    axes.append({"label": metric, "values": points[metric]})
    colours = {"color": points[metric], "colorscale": _colours(metric), "showscale": True}
    if metric in GAINS:
        colours["cmid"] = 0
    figure = go.Figure(go.Parcoords(line=colours, dimensions=axes))
    return figure.update_layout(title=f"{len(points)} points by {metric}")


def heat_maps(
    frame: pd.DataFrame, metric: str, x: str = "coefficient", y: str = "block"
) -> go.Figure:
    """Mean of the metric for two parameters' values: over all perspectives, and for each."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    points = finished(frame, metric)
    columns = [c for c in points if c.startswith(f"{metric}/") and len(points[c].dropna())]
    panels = [metric, *columns]
    names = ["all", *(c.removeprefix(f"{metric}/") for c in columns)]
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.03
    )
    tables = [points.pivot_table(index=y, columns=x, values=c, aggfunc="mean") for c in panels]
    for i, table in enumerate(tables, 1):
        figure.add_trace(
            go.Heatmap(
                z=table.to_numpy(),
                x=[short(v) for v in table.columns],
                y=[short(v) for v in table.index],
                coloraxis="coloraxis",
                texttemplate="%{z:.3f}",
            ),
            row=1,
            col=i,
        )
    figure.update_xaxes(title=x, type="category")
    figure.update_yaxes(type="category")
    figure.update_yaxes(title=y, col=1)
    figure.update_layout(
        title=f"{metric}, mean over the other parameters",
        coloraxis={"colorscale": _colours(metric), "colorbar": {"title": metric}},
    )
    return figure.update_coloraxes(cmid=0) if metric in GAINS else figure


def feedback_growth(frame: pd.DataFrame, metric: str, by: str | None = None) -> go.Figure:
    """The metric against the amount of feedback: the mean over all points, and over the best.

    Bars reach over the middle half of the points. With ``by`` there is a line for each value of
    that parameter.
    """
    import plotly.graph_objects as go

    points = finished(frame, metric)
    figure = go.Figure()
    groups = [("all points", points)] if by is None else list(points.groupby(by))
    for name, group in groups:
        spread: Any = group.groupby("n_feedback")[metric].describe()
        figure.add_trace(
            go.Scatter(
                x=spread.index,
                y=spread["50%"],
                name=short(name) if by is None else f"{by} {short(name)}",
                mode="lines+markers",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": spread["75%"] - spread["50%"],
                    "arrayminus": spread["50%"] - spread["25%"],
                },
            )
        )
    sizes = sorted(points["n_feedback"].unique().tolist())
    figure.update_xaxes(
        title="questions with feedback, per perspective", type="log", tickvals=sizes
    )
    figure.update_yaxes(title=metric)
    if metric in GAINS:
        figure.add_hline(y=0, line_dash="dot")
    return figure.update_layout(
        title=f"{metric} against feedback: median and middle half of points"
    )


def pictures_of(frame: pd.DataFrame, metric: str) -> dict[str, go.Figure]:
    """Those that the parameters of the sweep allow, by name."""
    names = varied(finished(frame, metric))
    pictures = {"parallel_coordinates": parallel_coordinates(frame, metric)}
    if "block" in names and "coefficient" in names:
        pictures["heat_maps"] = heat_maps(frame, metric)
    if "n_feedback" in names:
        pictures["feedback_growth"] = feedback_growth(
            frame, metric, "block" if "block" in names else None
        )
    return pictures


def write_pictures(frame: pd.DataFrame, metric: str, folder: Path) -> list[Path]:
    """Each picture as a page that needs no network."""
    written: list[Path] = []
    for name, figure in pictures_of(frame, metric).items():
        path = folder / f"{name}.html"
        write_atomically(path, figure.to_html(include_plotlyjs=True).encode())
        written.append(path)
    return written


def _colours(metric: str) -> str:
    return _GOOD_IS_LARGE if GOALS[metric] == "maximize" else _GOOD_IS_SMALL


def _by_size(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return (not number, value if number else str(value))


def short(value: Any) -> str:
    """A parameter's value in few characters."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
