"""From the scores of a point's branches to its numbers: options, merge, distance. No model here.

Branches are read as `saepd evaluate` reads them: at a temperature and with position biases that
are fitted on the feedback. A point's answer is the merge of the base and all branches, one for
everybody. Beside it stand the merge of each perspective's branch with the base, that branch alone,
and the base alone with the perspective's own readout: the strongest null, to which gains are
differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saepd.common.json_values import finite
from saepd.evaluation.methods.merged import merged
from saepd.evaluation.methods.nulls import (
    OWN_RIDGE,
    POOLED_RIDGE,
    fit_readout,
    read_biased,
)
from saepd.evaluation.results import labelled
from saepd.evaluation.results.parts import Prediction
from saepd.merge.config import MergeConfig
from saepd.metrics import weighted
from saepd.metrics.classification import accuracy
from saepd.metrics.distances import js_distance, total_variation
from saepd.metrics.intervals import DrawWeights, PerDraw, draw_weights, interval
from saepd.readout.softmax import OptionValues, SoftmaxWeights
from saepd.sweeps.point.metrics import SIDE_EFFECT
from saepd.sweeps.point.stages import ScoredPoint
from saepd.tasks.task import Task

# Name of a gain -> whose.
GAINS = {"gain": "merged", "with_base_gain": "with_base", "own_gain": "own"}


def measure(scored: ScoredPoint, merge: MergeConfig, seed: int) -> dict[str, Any]:
    """Metrics of a point over all perspectives and for each, with 95% bootstrap intervals.

    Args:
        scored: From `saepd.sweeps.point.stages.score_point`.
        merge: How branches become one answer.
        seed: Seed of the bootstrap over questions.

    Returns:
        ``metrics``: name -> number; ``intervals``: name -> [low, high] or None; ``rows``: the
        metrics of each perspective.

    Raises:
        InputError: whatever the merge refuses.
    """
    task, perspectives = scored.task, [d.perspective for d in scored.directions]
    scores = {id_: of_item.double().numpy() for id_, of_item in scored.scores.items()}
    n_positions = max(of_item.shape[1] for of_item in scores.values())

    def fitted(branch: int, perspective: str | None, ridge: float) -> SoftmaxWeights:
        rows = [r for r in scored.draw.feedback if perspective in (None, r.perspective)]
        return fit_readout([scores[r.item][branch] for r in rows], rows, ridge, n_positions)

    pooled = fitted(0, None, POOLED_RIDGE)
    base = {p: fitted(0, p, OWN_RIDGE) for p in perspectives}
    steered = {p: fitted(i, p, OWN_RIDGE) for i, p in enumerate(perspectives, 1)}

    def branch(item: str, perspective: str) -> OptionValues:
        return read_biased(scores[item][1 + perspectives.index(perspective)], steered[perspective])

    def merge_of(item: str, names: Sequence[str]) -> OptionValues:
        rows = [read_biased(scores[item][0], pooled), *(branch(item, p) for p in names)]
        return merged(np.log(np.maximum(np.stack(rows), 1e-30)), merge)

    everybody = {item: merge_of(item, perspectives) for item in scored.draw.test}
    methods: dict[str, Callable[[str, str], OptionValues]] = {
        "merged": lambda item, _: everybody[item],
        "own": branch,
        "base": lambda item, p: read_biased(scores[item][0], base[p]),
    }
    if not merge.weights:
        # Given weights are for all branches.
        methods["with_base"] = lambda item, p: merge_of(item, [p])
    asked = [
        (item, p)
        for item in scored.draw.test
        for p in perspectives
        if p in task.by_id[item].distributions
    ]
    predictions = {
        name: [Prediction(0, name, item, p, one(item, p)) for item, p in asked]
        for name, one in methods.items()
    }
    kl = {p: float(scored.kl[i]) for i, p in enumerate(perspectives)}
    return _summary(predictions, task, kl, seed)


def _summary(
    methods: Mapping[str, list[Prediction]], task: Task, kl: Mapping[str, float], seed: int
) -> dict[str, Any]:
    metrics, intervals = _metrics_and_intervals(methods, task, list(kl.values()), seed)
    rows: list[dict[str, Any]] = []
    for p, moved in kl.items():
        of_perspective = {
            m: [r for r in predictions if r.perspective == p] for m, predictions in methods.items()
        }
        if of_perspective["merged"]:
            rows.append(
                {"perspective": p, **_metrics_and_intervals(of_perspective, task, [moved], seed)[0]}
            )
    return {"metrics": metrics, "intervals": intervals, "rows": rows}


def _metrics_and_intervals(
    methods: Mapping[str, list[Prediction]], task: Task, kl: Sequence[float], seed: int
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Metrics and intervals; gains are paired differences, drawn together."""
    rows = methods["merged"]
    weights = draw_weights([task.question_of[r.item] for r in rows], seed)
    primary = {name: _primary(predictions, task, weights) for name, predictions in methods.items()}
    sign = 1 if task.positive else -1
    per_draw: dict[str, PerDraw] = {
        "auroc" if task.positive else "js_distance": primary["merged"],
        "base": primary["base"],
    }
    for name, method in GAINS.items():
        if method in primary:
            per_draw[name] = sign * (primary[method] - primary["base"])
    gold, predicted = _gold(rows, task), [row.probabilities for row in rows]
    per_draw["total_variation"] = weighted.mean(total_variation(predicted, gold), weights)
    per_draw["accuracy"] = weighted.mean(accuracy(predicted, _labels(rows, task)), weights)
    metrics = {name: finite(float(values[0])) for name, values in per_draw.items()}
    metrics[SIDE_EFFECT] = finite(float(np.mean(kl)))
    intervals = {name: interval(values) for name, values in per_draw.items()}
    return metrics, {n: None if i is None else [i.low, i.high] for n, i in intervals.items()}


def _labels(rows: Sequence[Prediction], task: Task) -> list[int]:
    gold = _gold(rows, task)
    if not task.positive:
        return [int(g.argmax()) for g in gold]
    places = [task.by_id[row.item].options.index(task.positive) for row in rows]
    return [labelled.label_of(g.tolist(), i) for g, i in zip(gold, places, strict=True)]


def _primary(rows: Sequence[Prediction], task: Task, weights: DrawWeights) -> PerDraw:
    if task.positive:
        scores, positive = labelled.scores_and_labels(rows, task)
        return weighted.auroc_within([row.perspective for row in rows], scores, positive, weights)
    return weighted.mean(js_distance([r.probabilities for r in rows], _gold(rows, task)), weights)


def _gold(rows: Sequence[Prediction], task: Task) -> list[OptionValues]:
    return [np.array(task.by_id[row.item].distributions[row.perspective]) for row in rows]
