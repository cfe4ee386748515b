"""From predictions to the rows of a table: one per method and perspective, and one over all.

On tasks of opinion the primary metric is the Jensen-Shannon distance, on tasks with a positive
class AUROC (macro-F1 where there are more than two options, which no one score ranks). AUROC is
the mean over perspectives and draws of what it is within each: across them, a method that only
knows who says Yes more often would rank items that it knows nothing about. Intervals are of 95%,
by bootstrap over whole questions, as a split has them: rows about items of one prompt or one group,
such as test cases made from one template, are drawn together, whichever draw, perspective or method
they are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saepd.branches.neutral import SideEffects
from saepd.common.json_values import finite
from saepd.evaluation.results import labelled
from saepd.evaluation.results.parts import Prediction
from saepd.metrics import weighted
from saepd.metrics.distances import js_distance, simbench_score, total_variation, wasserstein
from saepd.metrics.intervals import DrawWeights, Interval, PerDraw, draw_weights, interval
from saepd.tasks.task import Task

if TYPE_CHECKING:
    from saepd.evaluation.methods.method import Method

# The perspective of results over all perspectives.
EVERYBODY = "all"
BASELINES = ("zero-shot", "train-mean")

# Metric -> (name of its interval, how the differences begin, whether lower is better).
PRIMARY = {
    "js_distance": ("js_ci", "js", True),
    "auroc": ("auroc_ci", "auroc", False),
    "macro_f1": ("macro_f1_ci", "macro_f1", False),
}
_DIGITS = 6


def primary_metric(task: Task) -> str:
    """The metric that methods are sorted and compared by."""
    if not task.positive:
        return "js_distance"
    return "auroc" if "auroc" in task.metrics else "macro_f1"


def summary_rows(
    predictions: Sequence[Prediction],
    methods: Mapping[str, Method],
    task: Task,
    seed: int,
    effects: Mapping[str, Sequence[Mapping[str, SideEffects]]] | None = None,
) -> list[dict[str, Any]]:
    """Every metric of every method, over all perspectives first and then for each.

    ``unreadable`` is the share of answers that could not be read and count as uniform. Differences
    are of the primary metric, paired, to zero-shot, to train-mean, to the null that is best over
    all perspectives (the best in hindsight, which is in its favour), and to a method's own
    controls. A metric that is undefined for a row is None.

    Args:
        predictions: Predictions of all draws and methods; every method answers the same questions.
        methods: Id -> method, of those that predicted.
        task: With the gold.
        seed: Seed of the bootstrap.
        effects: Method -> of each draw, perspective -> what its branch does to neutral text. The
            rows tell their mean, over draws and (for everybody) perspectives.
    """
    # Bootstrap weights are by place, so all methods' rows have to stand in one order.
    place = {pair: i for i, pair in enumerate(dict.fromkeys(map(_key, predictions)))}
    table: dict[tuple[str, str], list[Prediction]] = {}
    for row in sorted(predictions, key=lambda row: place[_key(row)]):
        for name in {EVERYBODY, row.perspective}:
            table.setdefault((row.method, name), []).append(row)
    nulls = {id_ for id_, method in methods.items() if method.null}
    [first, *_] = methods
    groups = [p for p in task.perspectives if p != EVERYBODY and (first, p) in table]
    names = [EVERYBODY, *groups]
    metric = primary_metric(task)
    rows: list[dict[str, Any]] = []
    best = ""
    for name in names:
        weights = draw_weights([task.question_of[r.item] for r in table[first, name]], seed)
        per_draw = {
            method: _primary(metric, table[method, name], task, weights) for method in methods
        }
        if name == EVERYBODY:
            best = _best_method(metric, {m: float(v[0]) for m, v in per_draw.items() if m in nulls})
        base_rates = _base_rates(table.get(("train-mean", name), []), task)
        reference = _recall_of_few_shot(table, name, task, base_rates)
        for id_, method in methods.items():
            of_method = table[id_, name]
            rows.append(
                {
                    "method": id_,
                    "title": method.title,
                    "perspective": name,
                    "null": method.null,
                    "n_items": len({row.item for row in of_method}),
                    "n_predictions": len(of_method),
                    **_interval_of(metric, per_draw[id_]),
                    **_metrics(of_method, task, reference, base_rates),
                    "unreadable": float(np.mean([not row.readable for row in of_method])),
                    "best_null": best,
                    **_differences(metric, id_, per_draw, best),
                    **_minus_controls(metric, id_, per_draw, method.controls),
                    **_mean_effects((effects or {}).get(id_, []), name),
                }
            )
    if task.name == "hatecheck":
        rows += labelled.functionality_rows(
            {id_: table[id_, EVERYBODY] for id_ in methods}, methods, task
        )
    return [{key: _rounded(value) for key, value in row.items()} for row in rows]


def _key(row: Prediction) -> tuple[int, str, str]:
    return row.draw, row.item, row.perspective


def _primary(metric: str, rows: Sequence[Prediction], task: Task, weights: DrawWeights) -> PerDraw:
    if metric == "js_distance":
        predicted, gold = _pairs(rows, task)
        return weighted.mean(js_distance(predicted, gold), weights)
    scores, positive = labelled.scores_and_labels(rows, task)
    if metric == "auroc":
        groups = [(row.perspective, row.draw) for row in rows]
        return weighted.auroc_within(groups, scores, positive, weights)
    return weighted.macro_f1(scores >= labelled.THRESHOLD, positive, weights)


def _metrics(
    rows: Sequence[Prediction],
    task: Task,
    reference_recall: float | None,
    base_rates: Mapping[tuple[int, str], float],
) -> dict[str, float | None]:
    predicted, gold = _pairs(rows, task)
    if task.positive:
        return labelled.metrics(rows, task, reference_recall, base_rates)
    scaled = [
        (_on_scale(p, scale), _on_scale(q, scale))
        for row, p, q in zip(rows, predicted, gold, strict=True)
        if (scale := list(task.ordinal.get(row.item, ()))) and q[scale].sum() > 0
    ]
    even = all(np.allclose(q, 1 / len(q)) for q in gold)
    return {
        "total_variation": float(np.mean(total_variation(predicted, gold))),
        "wasserstein": float(np.mean(wasserstein(*zip(*scaled, strict=True)))) if scaled else None,
        "simbench_score": None if even else float(np.mean(simbench_score(predicted, gold))),
    }


def _on_scale(probabilities: np.ndarray, scale: list[int]) -> np.ndarray:
    """Probabilities among the ordered options; even where all lie on others, as if unreadable."""
    among = probabilities[scale]
    return among / among.sum() if among.sum() > 0 else np.full(len(scale), 1 / len(scale))


def _pairs(rows: Sequence[Prediction], task: Task) -> tuple[list[np.ndarray], list[np.ndarray]]:
    gold = [np.array(task.by_id[row.item].distributions[row.perspective]) for row in rows]
    return [row.probabilities for row in rows], gold


def _interval_of(metric: str, per_draw: PerDraw) -> dict[str, Any]:
    bounds = interval(per_draw)
    return {
        metric: float(per_draw[0]),
        PRIMARY[metric][0]: None if bounds is None else [bounds.low, bounds.high],
    }


def _differences(
    metric: str, method: str, per_draw: Mapping[str, PerDraw], best: str
) -> dict[str, Interval | None]:
    start = PRIMARY[metric][1]
    against = {name.replace("-", "_"): name for name in BASELINES} | {"best_null": best}
    return {
        f"{start}_minus_{key}": interval(per_draw[method] - per_draw[other])
        for key, other in against.items()
        if other in per_draw and other != method
    }


def _minus_controls(
    metric: str, method: str, per_draw: Mapping[str, PerDraw], controls: Sequence[str]
) -> dict[str, dict[str, Interval | None]]:
    differences = {
        name: interval(per_draw[method] - per_draw[name]) for name in controls if name in per_draw
    }
    return {f"{PRIMARY[metric][1]}_minus_controls": differences} if differences else {}


def _mean_effects(draws: Sequence[Mapping[str, SideEffects]], name: str) -> dict[str, float | None]:
    effects = [effect for draw in draws for p, effect in draw.items() if name in (EVERYBODY, p)]
    if not effects:
        return {"kl_to_base": None, "perplexity_ratio": None}
    kl, ratio = np.mean(effects, axis=0)
    return {"kl_to_base": float(kl), "perplexity_ratio": float(ratio)}


def _best_method(metric: str, estimates: Mapping[str, float]) -> str:
    defined = {name: value for name, value in estimates.items() if np.isfinite(value)}
    if not defined:
        return ""
    return (min if PRIMARY[metric][2] else max)(defined, key=lambda name: defined[name])


def _recall_of_few_shot(
    table: Mapping[tuple[str, str], Sequence[Prediction]],
    name: str,
    task: Task,
    base_rates: Mapping[tuple[int, str], float],
) -> float | None:
    """Recall that few-shot prompting reaches.

    Often a small model flags nothing at a probability of one half, whatever examples it is shown,
    and at a recall of 0 every method's false positive rate is 0. Then this is its recall where its
    highest scores are flagged, as large a share as is positive in the feedback.
    """
    rows = table.get(("few-shot", name))
    if not rows or not task.positive:
        return None
    scores, positive = labelled.scores_and_labels(rows, task)
    flagged = scores >= labelled.THRESHOLD
    if not flagged[positive].any() and base_rates:
        groups = [(row.draw, row.perspective) for row in rows]
        flagged = labelled.flagged_at_base_rate(groups, scores, base_rates)
    return float(flagged[positive].mean()) if positive.any() else None


def _base_rates(train_mean: Sequence[Prediction], task: Task) -> dict[tuple[int, str], float]:
    """Share of positive answers in the feedback, which is what train-mean predicts throughout."""
    if not task.positive or not train_mean:
        return {}
    scores, _ = labelled.scores_and_labels(train_mean, task)
    return {(r.draw, r.perspective): float(p) for r, p in zip(train_mean, scores, strict=True)}


def _rounded(value: Any) -> Any:
    """Digits that sums in another order would change are left out; NaN becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return finite(round(value, _DIGITS))
    return value
