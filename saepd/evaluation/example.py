"""One question that was held out, in full: what each branch says, the merge, and people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saepd.directions.direction import Direction
from saepd.evaluation.fold import Fold, Options
from saepd.feedback.schema import Item
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.readout.options import read_options
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


def most_divided(
    fold: Fold, directions: Mapping[str, Direction], task: Task, merge: MergeConfig
) -> Example:
    """The test question on which perspectives differ most, as each branch and the merge read it.

    Args:
        fold: The draw.
        directions: Perspective -> its direction, with the readout that was fitted with it.
        task: The task with its gold, which the fold does not have.
        merge: How the branches become one answer.
    """

    def spread(item: Item) -> float:
        return float(np.ptp(np.array(list(item.distributions.values())), axis=0).max())

    item = max((task.by_id[id_] for id_ in fold.test), key=spread)
    [read] = read_options(fold.model, [item], list(directions.values()), fold.readout)
    log_probs = read.log_probs()
    branches = dict(zip(["base", *directions], log_probs.exp().double().numpy(), strict=True))
    return Example(item, branches, merge_branches(log_probs, merge).exp().double().numpy())
