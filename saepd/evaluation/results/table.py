"""The rows over all perspectives as a Markdown table, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saepd.evaluation.results.summary import EVERYBODY, PRIMARY

METRIC_TITLES = {
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
    "false_positive_rate_at_recall_0.25": "FPR at recall .25",
    "false_positive_rate_at_recall_0.5": "FPR at recall .5",
    "ece": "ECE",
    "brier": "Brier",
    "kl_to_base": "KL on neutral text",
    "perplexity_ratio": "perplexity ratio",
    "unreadable": "unreadable",
}

# Perspectives beyond these are told in summary.json only.
_MOST_SIDE_BY_SIDE = 3


def table_cells(
    rows: Sequence[Mapping[str, Any]], *, short: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Column titles and cells of the rows over all perspectives, sorted by the primary metric.

    Args:
        rows: From `saepd.evaluation.results.summary.summary_rows`.
        short: Leave out what a terminal has no room for: all but the primary metric.
    """
    overall = _over_all_perspectives(rows)
    metric = next(name for name in PRIMARY if name in overall[0])
    interval, start, lower = PRIMARY[metric]
    shown = [n for n in METRIC_TITLES if n != metric and n in overall[0] and not short]
    of_each = {} if short else _of_each_perspective(rows, metric)
    columns = ["method", "null", METRIC_TITLES[metric], "95% interval"]
    columns += ["minus zero-shot", "minus best null"]
    columns += [f"{METRIC_TITLES[metric]}, {name}" for name in of_each]
    columns += [METRIC_TITLES[name] for name in shown]

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row[metric]
        return value is None, (value if lower else -value) if value is not None else 0.0

    cells = [
        [
            row["title"],
            "null" if row["null"] else "",
            _number(row[metric]),
            "" if row[interval] is None else "{:.3f} to {:.3f}".format(*row[interval]),
            _difference(row.get(f"{start}_minus_zero_shot")),
            _difference(row.get(f"{start}_minus_best_null")),
            *(_number(by_method[row["method"]]) for by_method in of_each.values()),
            *(_number(row[name]) for name in shown),
        ]
        for row in sorted(overall, key=place)
    ]
    return columns, cells


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows over all perspectives; differences of the primary metric with their intervals.

    Where methods have controls, a further table has their differences; where there are rows for
    each kind of test case, another has a line for each kind.
    """
    return "\n\n".join(_markdown(*table) for table in result_tables(rows))


def result_tables(rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[list[str]]]]:
    """The tables that `markdown_table` writes: column titles and cells of each."""
    tables = [table_cells(rows)]
    if (controlled := _control_cells(rows))[1]:
        tables.append(controlled)
    if any("functionality" in row for row in rows):
        tables.append(_functionality_cells(rows))
    return tables


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: which null is best, and whether the best of the others is better."""
    overall = _over_all_perspectives(rows)
    metric = next(name for name in PRIMARY if name in overall[0])
    _, start, lower = PRIMARY[metric]
    defined = sorted(
        (row for row in overall if row[metric] is not None),
        key=lambda row: row[metric] if lower else -row[metric],
    )
    null = next((row for row in defined if row["null"]), None)
    best = next((row for row in defined if not row["null"]), None)
    if null is None or best is None:
        return "There is nothing to compare: it takes a null and a method that is none."
    opening = f"The best null is {null['title']} ({METRIC_TITLES[metric]} {null[metric]:.3f})"
    ours = f"{best['title']} ({best[metric]:.3f})"
    difference = best.get(f"{start}_minus_best_null")
    if difference is None:
        return f"{opening}; the best method beside the nulls is {ours}."
    # What rounds to 0 in the table is no difference worth a claim.
    _, low, high = (round(value, 3) for value in difference)
    if low <= 0 <= high:
        verdict = "cannot be told apart from it"
    else:
        verdict = "is better" if (high < 0) == lower else "is worse"
    interval = f"95% interval of the difference {low:+.3f} to {high:+.3f}"
    return f"{opening}; of the other methods the best, {ours}, {verdict} ({interval})."


def _markdown(columns: list[str], cells: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *cells]
    # A name may hold what would end its cell.
    rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _control_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Each method less each of its controls, over all perspectives."""
    overall = _over_all_perspectives(rows)
    titles = {row["method"]: row["title"] for row in overall}
    metric = next(name for name in PRIMARY if name in overall[0])
    key = f"{PRIMARY[metric][1]}_minus_controls"
    cells = [
        [row["title"], titles[control], _difference(difference)]
        for row in overall
        for control, difference in row.get(key, {}).items()
    ]
    return ["method", "its control", f"{METRIC_TITLES[metric]}, method minus control"], cells


def _functionality_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Accuracy of every method on every kind of test case."""
    row_of = {(r["functionality"], r["title"]): r for r in rows if "functionality" in r}
    kinds = sorted({kind for kind, _ in row_of})
    methods = list(dict.fromkeys(method for _, method in row_of))
    cells = [
        [kind, str(row_of[kind, methods[0]]["n_predictions"])]
        + [_number(row_of[kind, method]["accuracy"]) for method in methods]
        for kind in kinds
    ]
    return ["accuracy by functionality", "predictions", *methods], cells


def _over_all_perspectives(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [r for r in rows if "functionality" not in r and r["perspective"] == EVERYBODY]


def _of_each_perspective(
    rows: Sequence[Mapping[str, Any]], metric: str
) -> dict[str, dict[str, float | None]]:
    """Perspective -> method -> primary metric, where there are few enough to stand side by side."""
    by_perspective: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if "functionality" not in row and row["perspective"] != EVERYBODY:
            by_perspective.setdefault(row["perspective"], {})[row["method"]] = row[metric]
    return by_perspective if 1 < len(by_perspective) <= _MOST_SIDE_BY_SIDE else {}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _difference(value: Sequence[float] | None) -> str:
    return "" if value is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*value)
