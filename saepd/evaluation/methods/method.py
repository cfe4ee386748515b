"""What a method of the comparison is: how one row of the table comes about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from saepd.branches.engine.plan import Branch
from saepd.evaluation.fold import Fold, Predictions


@dataclass(frozen=True)
class Method:
    """How one row of the table comes about.

    Attributes:
        title: What tables call it.
        predict: From a fold to its predictions.
        description: What the method does, in one line.
        null: It is what others have to beat, rather than a claim of this project.
        for_labels: It needs a task with a positive class.
        costly: It is left out unless it is named, or all methods are asked for.
        branches: From a fold to the branch of each perspective, where the method has any that can
            be run on other text.
        controls: Ids of methods that are the same but for the one thing it claims to use.
        for_population: It gives everybody one answer, which is to be spread as the population's
            answers are; it is compared with these, and not with those of any group.
    """

    title: str
    predict: Callable[[Fold], Predictions]
    description: str
    null: bool = True
    for_labels: bool = False
    costly: bool = False
    branches: Callable[[Fold], Mapping[str, Branch]] | None = None
    controls: tuple[str, ...] = ()
    for_population: bool = False
