"""Which methods a comparison runs: those that are named, or those that the task allows."""

from __future__ import annotations

from collections.abc import Sequence

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.evaluation.methods.method import Method
from saepd.evaluation.methods.registry import METHODS
from saepd.tasks.task import Task

# Instead of ids: every method that the task allows.
ALL = "all"


def methods_of(task: Task, ids: Sequence[str] | None = None) -> dict[str, Method]:
    """The methods with these ids, or all that the task allows and that are not costly.

    One text may hold several ids with commas between them.

    Raises:
        InputError: no ids, an unknown one, one that needs a positive class or several perspectives
            that the task lacks, or only such as answer for the whole population.
    """
    if ids is None:
        return {id_: method for id_, method in _allowed(task).items() if not method.costly}
    texts = [ids] if isinstance(ids, str) else ids
    ids = [id_.strip() for text in texts for id_ in text.split(",") if id_.strip()]
    if ids == [ALL]:
        return _allowed(task)
    if not ids:
        raise InputError(f"no methods: name at least one of {', '.join(METHODS)}, or {ALL}")
    for id_ in ids:
        if id_ not in METHODS:
            raise InputError(f"unknown method {shortened(id_)}: {nearest(id_, METHODS, 99)}")
        if METHODS[id_].for_labels and not task.positive:
            raise InputError(
                f"the method {id_} needs a positive class, which the task {task.name} does not "
                "have: leave it out"
            )
        if METHODS[id_].for_population and len(task.perspectives) < 2:
            raise InputError(
                f"the method {id_} makes one answer of those of several perspectives, and the task "
                f"{task.name} has one: leave it out"
            )
    if all(METHODS[id_].for_population for id_ in ids):
        raise InputError(
            f"{', '.join(ids)}: there is nothing to compare what is for the whole population with: "
            "name a null as well, such as zero-shot"
        )
    return {id_: METHODS[id_] for id_ in dict.fromkeys(ids)}


def _allowed(task: Task) -> dict[str, Method]:
    several = len(task.perspectives) > 1
    return {
        id_: method
        for id_, method in METHODS.items()
        if (task.positive or not method.for_labels) and (several or not method.for_population)
    }
