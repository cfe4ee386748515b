"""What is measured at a point, by name."""

from __future__ import annotations

from typing import Literal

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.tasks.task import Task

Goal = Literal["minimize", "maximize"]

GOALS: dict[str, Goal] = {
    "js_distance": "minimize",
    "auroc": "maximize",
    "gain": "maximize",
    "with_base_gain": "maximize",
    "own_gain": "maximize",
    "total_variation": "minimize",
    "accuracy": "maximize",
    "kl_to_base": "minimize",
}
MEANINGS = {
    "js_distance": "Jensen-Shannon distance (base 2) to what people answered",
    "auroc": "mean over perspectives of the AUROC of the positive class; tasks with labels only",
    "gain": "how much better the merge of all branches is than the base read with a fitted "
    "readout, in the primary metric",
    "with_base_gain": "how much better each perspective's branch, merged with the base alone, is "
    "than the base read with a fitted readout, in the primary metric",
    "own_gain": "how much better each perspective's own branch, unmerged, is than the base read "
    "with a fitted readout, in the primary metric",
    "total_variation": "total variation to what people answered",
    "accuracy": "share of questions whose most frequent answer is the most probable",
    "kl_to_base": "side effect: nats that the branches move neutral text by, mean over branches",
}
# Of the branches, whatever is merged: it has no interval over questions.
SIDE_EFFECT = "kl_to_base"


def check_metric(name: str, task: Task | None = None) -> None:
    """Refuse what is not measured.

    Raises:
        InputError: an unknown name, or a metric that the task does not define.
    """
    if name not in GOALS:
        raise InputError(f"there is no metric {shortened(name)}: {nearest(name, GOALS, 99)}")
    if name == "auroc" and task is not None and not task.positive:
        raise InputError(
            f"the metric auroc needs a positive class, which the task {task.name} does not have: "
            "use js_distance"
        )
