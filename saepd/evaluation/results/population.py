"""The same predictions against the population's answers: is one distribution right for everybody?

Distributional pluralism (Sorensen et al. 2024, arXiv 2402.05070): a model's one answer
should be spread as the population's answers are. The population's gold of a question is the mean of
the groups' gold, weighted by their shares in the population. A method that answers for each group
is taken by the mean of these answers with the same weights, which is a linear opinion pool; one
that gives everybody one answer, such as a merge, by that answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from saepd.branches.neutral import SideEffects
from saepd.evaluation.results.parts import Prediction
from saepd.evaluation.results.summary import EVERYBODY, summary_rows
from saepd.tasks.task import OPINION_METRICS, Task

if TYPE_CHECKING:
    from saepd.evaluation.methods.method import Method


def population_rows(
    predictions: Sequence[Prediction],
    methods: Mapping[str, Method],
    task: Task,
    seed: int,
    effects: Mapping[str, Sequence[Mapping[str, SideEffects]]] | None = None,
) -> list[dict[str, Any]]:
    """Rows as of `summary_rows`, over everybody, by the distance to the population's answers.

    The metric is the Jensen-Shannon distance, on tasks with a positive class too. A question's
    population are the perspectives that are known to have answered it. Without a second perspective
    or a method that answers for everybody there are no rows.
    """
    if len(task.perspectives) < 2 or not any(m.for_population for m in methods.values()):
        return []
    rows = _of_population(predictions, task)
    asked = {row.item for row in rows}
    everybody = replace(
        task,
        items=tuple(
            item.model_copy(update={"distributions": {EVERYBODY: _mean(item.distributions, task)}})
            for item in task.items
            if item.id in asked
        ),
        feedback=(),
        positive="",
        metrics=OPINION_METRICS,
        population={},
    )
    apart = _apart(predictions)
    named = {
        id_: replace(method, title=f"{method.title}, groups' mean") if id_ in apart else method
        for id_, method in methods.items()
    }
    return summary_rows(rows, named, everybody, seed, effects)


def _of_population(predictions: Sequence[Prediction], task: Task) -> list[Prediction]:
    """One prediction of each draw, method and item."""
    groups: dict[tuple[int, str, str], list[Prediction]] = {}
    for row in predictions:
        groups.setdefault((row.draw, row.method, row.item), []).append(row)
    return [
        Prediction(
            *key,
            EVERYBODY,
            np.array(_mean({row.perspective: row.probabilities for row in rows}, task)),
            all(row.readable for row in rows),
        )
        for key, rows in groups.items()
    ]


def _mean(distributions: Mapping[str, ArrayLike], task: Task) -> tuple[float, ...]:
    shares = task.shares(list(distributions))
    total = np.sum([share * np.asarray(distributions[n]) for n, share in shares.items()], axis=0)
    return tuple((total / total.sum()).tolist())


def _apart(predictions: Sequence[Prediction]) -> set[str]:
    """Methods that give some perspectives different answers."""
    first: dict[tuple[int, str, str], np.ndarray] = {}
    return {
        row.method
        for row in predictions
        if not np.array_equal(
            first.setdefault((row.draw, row.method, row.item), row.probabilities),
            row.probabilities,
        )
    }
