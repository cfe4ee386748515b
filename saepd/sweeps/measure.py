"""From the scores of a point's branches to its numbers: options, merge, distance. No model here.

As in `saepd.experiment`: what the base model likes whatever is asked is taken off every branch,
and a temperature of each branch is fitted on the feedback it was made from. A point's answer is
the merge of the base and all branches, one for everybody; beside it stands what each perspective's
own branch says alone, and the base read in the same way, which gains are differences to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from saepd.baselines import answered
from saepd.evaluation import bootstrap, labelled
from saepd.evaluation.bootstrap import PerDraw
from saepd.evaluation.parts import Prediction
from saepd.merge import MergeConfig, merge_branches
from saepd.metrics import accuracy, js_distance, total_variation
from saepd.readout import fit_temperature
from saepd.schema import Feedback
from saepd.sweeps.stages import Scored
from saepd.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

# Raised when the same scores come to mean other numbers.
VERSION = 1

Options = Float[np.ndarray, " options"]
Branch = tuple[int, float]  # index of a branch, and its temperature


def measure(scored: Scored, merge: MergeConfig, seed: int) -> dict[str, Any]:
    """Metrics of a point over all perspectives and for each, with 95% bootstrap intervals.

    Args:
        scored: From `saepd.sweeps.stages.score_point`.
        merge: Operator and numbers.
        seed: Of the bootstrap over questions.

    Returns:
        ``metrics``: name -> number; ``intervals``: name -> [low, high] or None; ``rows``: the
        metrics of each perspective.

    Raises:
        InputError: whatever the merge refuses.
    """
    import torch

    task, perspectives = scored.task, [d.perspective for d in scored.directions]
    scores = _centred(scored)
    rows = {p: [r for r in scored.draw.feedback if r.perspective == p] for p in perspectives}
    everybody = _temperature(scores, scored.draw.feedback, 0)
    own = {p: (i, _temperature(scores, rows[p], i)) for i, p in enumerate(perspectives, 1)}
    base = {p: (0, _temperature(scores, rows[p], 0)) for p in perspectives}

    def distribution(item: str, branch: Branch) -> Options:
        index, temperature = branch
        return (scores[item][index] / temperature).softmax(-1).double().numpy()

    merged: dict[str, Options] = {}
    for item in scored.draw.test:
        chosen = [(0, everybody), *own.values()]
        log_probs = torch.stack([(scores[item][i] / t).log_softmax(-1) for i, t in chosen])
        merged[item] = merge_branches(log_probs, merge).exp().double().numpy()

    asked = [
        (item, p)
        for item in scored.draw.test
        for p in perspectives
        if p in task.by_id[item].distributions
    ]

    def predictions(one: Callable[[str, str], Options]) -> list[Prediction]:
        return [Prediction(0, "", item, p, one(item, p)) for item, p in asked]

    return _summary(
        {
            "merged": predictions(lambda item, _: merged[item]),
            "own": predictions(lambda item, p: distribution(item, own[p])),
            "base": predictions(lambda item, p: distribution(item, base[p])),
        },
        task,
        perspectives,
        {p: float(scored.kl[i]) for i, p in enumerate(perspectives)},
        seed,
    )


def _centred(scored: Scored) -> dict[str, Tensor]:
    """Scores less the base's mean over the feedback's questions with the same options."""
    import torch

    groups: dict[tuple[str, ...], list[Tensor]] = {}
    for id_ in dict.fromkeys(row.item for row in scored.draw.feedback):
        groups.setdefault(scored.task.by_id[id_].options, []).append(scored.scores[id_][0])
    offsets = {options: torch.stack(g).mean(0) for options, g in groups.items() if len(g) > 1}
    return {
        id_: scores - offsets.get(scored.task.by_id[id_].options, torch.zeros(scores.shape[1]))
        for id_, scores in scored.scores.items()
    }


def _temperature(scores: Mapping[str, Tensor], rows: Sequence[Feedback], branch: int) -> float:
    return fit_temperature(
        [scores[row.item][branch] for row in rows], [answered(row) for row in rows]
    )


def _summary(
    methods: Mapping[str, list[Prediction]],
    task: Task,
    perspectives: Sequence[str],
    kl: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    def of(name: str | None) -> tuple[dict[str, float | None], dict[str, Any]]:
        chosen = {
            m: [r for r in rows if name in (None, r.perspective)] for m, rows in methods.items()
        }
        weights = bootstrap.draw_weights([r.item for r in chosen["merged"]], seed)
        primary = {m: _primary(rows, task, weights) for m, rows in chosen.items()}
        sign = 1 if task.positive else -1
        per_draw: dict[str, PerDraw] = {
            "auroc" if task.positive else "js_distance": primary["merged"],
            "gain": sign * (primary["merged"] - primary["base"]),
            "own": primary["own"],
            "own_gain": sign * (primary["own"] - primary["base"]),
            "base": primary["base"],
        }
        gold = _gold(chosen["merged"], task)
        predicted = [row.probabilities for row in chosen["merged"]]
        if task.positive:
            places = [task.by_id[r.item].options.index(task.positive) for r in chosen["merged"]]
            labels = [labelled.label_of(g.tolist(), i) for g, i in zip(gold, places, strict=True)]
        else:
            labels = [int(g.argmax()) for g in gold]
        per_draw["total_variation"] = bootstrap.mean(total_variation(predicted, gold), weights)
        per_draw["accuracy"] = bootstrap.mean(accuracy(predicted, labels), weights)
        intervals = {m: bootstrap.interval(values) for m, values in per_draw.items()}
        metrics = {m: _finite(float(values[0])) for m, values in per_draw.items()}
        moved = [value for p, value in kl.items() if name in (None, p)]
        metrics["kl_to_base"] = _finite(float(np.mean(moved)))
        return metrics, {m: None if i is None else [i.low, i.high] for m, i in intervals.items()}

    metrics, intervals = of(None)
    return {
        "metrics": metrics,
        "intervals": intervals,
        "rows": [{"perspective": p, **of(p)[0]} for p in perspectives],
    }


def _primary(rows: Sequence[Prediction], task: Task, weights: bootstrap.Weights) -> PerDraw:
    if task.positive:
        scores, positive = labelled.scores_and_labels(rows, task)
        return bootstrap.auroc_within([row.perspective for row in rows], scores, positive, weights)
    return bootstrap.mean(js_distance([r.probabilities for r in rows], _gold(rows, task)), weights)


def _gold(rows: Sequence[Prediction], task: Task) -> list[Options]:
    return [np.array(task.by_id[row.item].distributions[row.perspective]) for row in rows]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
