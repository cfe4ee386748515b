"""The rows over all perspectives as a Markdown table, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saepd.evaluation.summary import EVERYBODY, PRIMARY

_TITLES = {
    "js_distance": "JS distance",
    "auroc": "AUROC",
    "macro_f1": "macro-F1",
    "total_variation": "total variation",
    "wasserstein": "Wasserstein",
    "simbench_score": "SimBench",
    "macro_f1_at_base_rate": "macro-F1 at base rate",
    "positive_f1": "positive F1",
    "false_positive_rate": "FPR",
    "false_positive_rate_at_few_shot_recall": "FPR at few-shot's recall",
    "ece": "ECE",
    "brier": "Brier",
    "unreadable": "unreadable",
}


def table_cells(
    rows: Sequence[Mapping[str, Any]], *, short: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Column titles and cells of the rows over all perspectives, sorted by the primary metric.

    Args:
        rows: From `saepd.evaluation.summary.summary_rows`.
        short: Leave out what a terminal has no room for: all but the primary metric.
    """
    overall = [r for r in rows if r["perspective"] == EVERYBODY and "functionality" not in r]
    metric = next(name for name in PRIMARY if name in overall[0])
    interval, start, lower = PRIMARY[metric]
    shown = [n for n in _TITLES if n != metric and n in overall[0] and not short]
    columns = ["method", "null", _TITLES[metric], "95% interval"]
    columns += ["minus zero-shot", "minus best null", *(_TITLES[name] for name in shown)]

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row[metric]
        return value is None, (value if lower else -value) if value is not None else 0.0

    cells = [
        [
            row["method"],
            "null" if row["null"] else "",
            _number(row[metric]),
            "" if row[interval] is None else "{:.3f} to {:.3f}".format(*row[interval]),
            _difference(row.get(f"{start}_minus_zero_shot")),
            _difference(row.get(f"{start}_minus_best_null")),
            *(_number(row[name]) for name in shown),
        ]
        for row in sorted(overall, key=place)
    ]
    return columns, cells


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows over all perspectives; differences of the primary metric with their intervals."""
    columns, cells = table_cells(rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _difference(value: Sequence[float] | None) -> str:
    return "" if value is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*value)
