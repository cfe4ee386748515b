"""The report of an evaluation: what came out, how sure that is, and questions worked one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.html import Html, bar, element, facts, joined, note, table
from saepd.evaluation.results.result import (
    ITEMS_FILE,
    PREDICTIONS_FILE,
    EvaluationResult,
    read_evaluation,
)
from saepd.evaluation.results.summary import EVERYBODY, PRIMARY
from saepd.evaluation.results.table import METRIC_TITLES, finding, result_tables
from saepd.metrics.calibration import reliability_diagram
from saepd.metrics.distances import js_distance
from saepd.metrics.selective import risk_coverage_curve
from saepd.pages.page import Section
from saepd.pages.svg import Measured, curves_picture, intervals_picture

if TYPE_CHECKING:
    import pandas as pd

# Methods that are drawn, and shown of each worked question: the best ones.
_N_METHODS = 4
_N_WORKED = 5
_LONGEST_PROMPT = 1500


def evaluation_sections(folder: Path) -> tuple[str, str, list[Section]]:
    """Title, finding and parts of an evaluation's report.

    Raises:
        InputError: the folder is not one that an evaluation finished.
    """
    result = read_evaluation(folder)
    rows = [row for row in result["rows"] if "functionality" not in row]
    overall = [row for row in rows if row["perspective"] == EVERYBODY]
    metric = next(name for name in PRIMARY if name in overall[0])
    interval, _, lower = PRIMARY[metric]
    ranked = sorted(
        (row for row in overall if row[metric] is not None),
        key=lambda row: row[metric] if lower else -row[metric],
    )
    title = METRIC_TITLES[metric]
    which = "lower is better" if lower else "higher is better"
    sections = [
        Section(
            "Methods and nulls",
            joined(
                intervals_picture([_measured(row, metric, interval) for row in ranked], title),
                note(
                    f"{title} on questions that no method saw, with 95% intervals; {which}. "
                    "Nulls are drawn in blue."
                ),
                *(table(columns, cells) for columns, cells in result_tables(result["rows"])),
            ),
        ),
        Section("Each perspective", _perspectives(rows, metric, interval)),
    ]
    if result.population:
        sections.append(Section("One answer for the whole population", _population(result)))
    frame = _predictions(folder)
    best = [row["method"] for row in ranked[:_N_METHODS]]
    titles = {row["method"]: row["title"] for row in overall}
    if frame is not None:
        sections += [
            Section("What its confidence is worth", _confidence(frame, best, titles)),
            Section("Five questions worked", _worked(frame, best, titles, _items(folder))),
        ]
    for_all = {row["method"]: row["title"] for row in result.population}
    sections.append(Section("Methods in words", _described(result, for_all | titles)))
    sections.append(Section("Configuration and versions", _configuration(result)))
    return f"Evaluation on {result['config']['task']}", result.finding(), sections


def _population(result: EvaluationResult) -> Html:
    return joined(
        note(
            "Distance to the mean of the groups' answers, weighted by their shares of the "
            "population. A method that answers for each group is taken by the same mean of its "
            f"answers. {finding(result.population)}"
        ),
        *(table(columns, cells) for columns, cells in result_tables(result.population)),
    )


def _measured(row: dict[str, Any], metric: str, interval: str) -> Measured:
    low, high = row[interval] or (None, None)
    return Measured(row["title"], row[metric], low, high, plain=bool(row["null"]))


def _perspectives(rows: list[dict[str, Any]], metric: str, interval: str) -> Html:
    cells = [
        [row["perspective"], row["title"], row[metric], *(row[interval] or (None, None))]
        for row in sorted(rows, key=lambda row: (row["perspective"], row["title"]))
        if row["perspective"] != EVERYBODY
    ]
    columns = ["perspective", "method", METRIC_TITLES[metric], "95% from", "to"]
    return table(columns, cells)


def _predictions(folder: Path) -> pd.DataFrame | None:
    """What methods predicted; None where the file or what reads it is missing."""
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        return None
    try:
        import pandas as pd

        frame = pd.read_parquet(path)
    except ImportError as error:
        raise InputError("pandas and pyarrow are needed: pip install 'saepd[explore]'") from error
    except Exception as error:
        # What reads the file raises classes of its own, by what is wrong.
        raise InputError(f"{path} is no table of predictions: evaluate again") from error
    wanted = {"draw", "method", "item", "perspective", "probabilities", "gold"}
    if missing := wanted - set(frame):
        raise InputError(f"{path} has no column {', '.join(sorted(missing))}: evaluate again")
    return frame


def _items(folder: Path) -> dict[str, dict[str, Any]]:
    """Questions by id; empty where an evaluation of an older version left none."""
    path = folder / ITEMS_FILE
    if not path.is_file():
        return {}
    try:
        return {item["id"]: item for item in json.loads(read_text(path))}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is no list of questions: evaluate again") from error


def _confidence(frame: pd.DataFrame, best: list[str], titles: dict[str, str]) -> Html:
    risks, bins = {}, {}
    for method in best:
        rows = frame[frame.method == method]
        predicted = [np.asarray(p, float) for p in rows.probabilities]
        gold = [np.asarray(p, float) for p in rows.gold]
        unsure = [-float((p * np.log(np.maximum(p, 1e-12))).sum()) for p in predicted]
        curve = risk_coverage_curve(unsure, js_distance(predicted, gold))
        risks[titles[method]] = (curve.coverage.tolist(), curve.risk.tolist())
        labels = [int(p.argmax()) for p in gold]
        diagram = reliability_diagram(predicted, labels, n_bins=8, binning="equal-mass")
        bins[titles[method]] = (diagram.confidence.tolist(), diagram.accuracy.tolist())
    return joined(
        element("h3", "Risk and coverage"),
        curves_picture(risks, "share of questions answered, surest first", "mean JS distance"),
        element("h3", "Reliability"),
        curves_picture(bins, "confidence", "accuracy", diagonal=True),
        note(
            "Accuracy is how often the likeliest option is people's most frequent answer; "
            "bins hold equally many predictions."
        ),
    )


def _worked(
    frame: pd.DataFrame, best: list[str], titles: dict[str, str], items: dict[str, dict[str, Any]]
) -> Html:
    """Questions from the one the best method answers best to the one it answers worst."""
    first = frame[(frame.method == best[0]) & (frame.draw == frame.draw.min())]
    distances = js_distance(list(first.probabilities), list(first.gold))
    order = np.argsort(distances, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _N_WORKED).round().astype(int))]
    parts = [
        note(
            f"From the question that {titles[best[0]]} answers best to the one it answers worst, "
            "in the first draw."
        )
    ]
    for place in chosen:
        row = first.iloc[int(place)]
        item = items.get(row["item"], {"prompt": row["item"], "options": []})
        options = item["options"] or [f"option {i + 1}" for i in range(len(row["gold"]))]
        same = frame[
            (frame.draw == row["draw"])
            & (frame.item == row["item"])
            & (frame.perspective == row["perspective"])
        ]
        cells = [[f"people ({row['perspective']})", *(bar(p, people=True) for p in row["gold"])]]
        for method in best:
            predicted = same["probabilities"][same["method"] == method]
            cells += [[titles[method], *map(bar, probabilities)] for probabilities in predicted]
        parts += [
            element("h3", item["prompt"][:_LONGEST_PROMPT]),
            table(["", *options], cells),
        ]
    return joined(*parts)


def _described(result: EvaluationResult, titles: dict[str, str]) -> Html:
    methods: dict[str, str] = result["methods"]
    return facts({titles.get(id_, id_): text for id_, text in methods.items()})


def _configuration(result: EvaluationResult) -> Html:
    settings: dict[str, Any] = {
        "test questions of each draw": ", ".join(map(str, result["n_test_items"])),
        **result["config"],
    }
    left_out = {f"left out: {why}": n for why, n in result["left_out"].items()}
    return facts(settings | left_out)
