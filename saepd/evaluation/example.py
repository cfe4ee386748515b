"""One question that was held out, in full: what each branch says, the merge, and people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saepd.evaluation.fold import Fold, Options
from saepd.evaluation.methods.merged import base_readout, branch_log_probs, merged
from saepd.evaluation.methods.steered import Steered
from saepd.feedback.schema import Item
from saepd.merge.config import MergeConfig
from saepd.tasks.task import Task


@dataclass(frozen=True)
class Example:
    """One question, answered by everybody.

    Attributes:
        item: The question, with what people answered.
        branches: ``base`` or perspective -> probabilities of the options.
        merged: Probabilities of the options after the merge.
    """

    item: Item
    branches: dict[str, Options]
    merged: Options

    def to_dict(self) -> dict[str, Any]:
        """The example as JSON values."""
        return {
            "item": self.item.id,
            "prompt": self.item.prompt,
            "options": list(self.item.options),
            "branches": {name: p.tolist() for name, p in self.branches.items()},
            "merged": self.merged.tolist(),
            "people": {name: list(p) for name, p in self.item.distributions.items()},
        }


def most_divided(fold: Fold, steered: Steered, task: Task, merge: MergeConfig) -> Example:
    """The test question on which perspectives differ most, as each branch and the merge read it.

    Args:
        fold: The draw.
        steered: The branches, from `saepd.evaluation.methods.steered.mean_differences`.
        task: The task with its gold, which the fold does not have.
        merge: How the branches become one answer.
    """

    def spread(item: Item) -> float:
        return float(np.ptp(np.array(list(item.distributions.values())), axis=0).max())

    item = max((task.by_id[id_] for id_ in fold.test), key=spread)
    names = list(steered.directions)
    log_probs = branch_log_probs(item, steered, base_readout(fold), names)
    branches = dict(zip(["base", *names], np.exp(log_probs), strict=True))
    return Example(item, branches, merged(log_probs, merge))
