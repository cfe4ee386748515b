"""What a sweep says, for whoever reads it in Python: best points, parameters, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.html import card, note, table
from saepd.sweeps.point.metrics import GOALS, MEANINGS
from saepd.sweeps.results.frame import (
    finished,
    importance,
    pareto,
    read_sweep,
    told_columns,
    varied,
)
from saepd.sweeps.results.pictures import pictures_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_N_SHOWN = 10


@dataclass(frozen=True, repr=False)
class SweepResults:
    """The points of a sweep, compared by one metric.

    Attributes:
        metric: Name of the metric.
        points: Every point, with all that `read_sweep` says of it.
    """

    metric: str
    points: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Every point, one a row, as a pandas frame; see `read_sweep`."""
        return self.points

    def best(self, n: int = _N_SHOWN) -> pd.DataFrame:
        """The best points: what was varied, the metric with its interval, the side effect."""
        return self._shown_columns(finished(self.points, self.metric).head(n))

    def pareto(self) -> pd.DataFrame:
        """The points that no other beats without more of the side effect."""
        return self._shown_columns(pareto(self.points, self.metric))

    def importance(self) -> dict[str, float]:
        """Share of the metric's variance that each parameter explains alone, largest first."""
        return importance(self.points, self.metric)

    def pictures(self) -> dict[str, go.Figure]:
        """Those that the parameters of the sweep allow, by name, as plotly figures."""
        return pictures_of(self.points, self.metric)

    def __repr__(self) -> str:
        points = finished(self.points, self.metric)
        names, best = varied(points), points.iloc[0]
        where = ", ".join(f"{name}={best[name]}" for name in names)
        return (
            f"SweepResults({len(points)} points; best {self.metric} {best[self.metric]:.4g} "
            f"with {where or 'the only setting'})"
        )

    def _repr_html_(self) -> str:
        best = self.best()
        rows = [[_cell(value) for value in row] for row in best.itertuples(index=False)]
        shares = [[name, share] for name, share in self.importance().items()]
        n_failed = int((self.points.status == "failed").sum())
        better = "higher" if GOALS[self.metric] == "maximize" else "lower"
        return card(
            f"sweep of {len(finished(self.points, self.metric))} points by {self.metric}",
            note(f"{self.metric}: {MEANINGS[self.metric]}; {better} is better"),
            table(list(best.columns), rows, digits=4),
            note(
                f"The best of many looks better than it is. {n_failed} points failed. Share of the "
                "variance between points that each parameter explains alone:"
            ),
            table(["parameter", "share"], shares, digits=2),
        )

    def _shown_columns(self, points: pd.DataFrame) -> pd.DataFrame:
        names = varied(finished(self.points, self.metric))
        columns = told_columns(points, self.metric, names)
        return points.loc[:, columns].reset_index(drop=True)


def sweep_results(folder: str | Path, metric: str = "gain") -> SweepResults:
    """Read what a sweep found.

    Args:
        folder: What was given as ``--out``.
        metric: What points are compared by.

    Raises:
        InputError: pandas is missing, the folder holds no sweep, or no point has the metric.
    """
    points = read_sweep(folder)
    finished(points, metric)
    return SweepResults(metric, points)


def _cell(value: Any) -> Any:
    return float(value) if isinstance(value, float) else str(value)
