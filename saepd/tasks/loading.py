"""Which tasks there are by name; a loader is imported when its task is first loaded."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.tasks.task import Task

# Name -> (module of this package, function from a path to a task; of nothing, where packaged).
_LOADERS = {
    "claims": ("published.claims", "load_claims"),
    "globalopinionqa": ("published.global_opinion_qa", "load_global_opinion_qa"),
    "gss": ("packaged", "packaged_survey"),
    "hatecheck": ("published.hatecheck", "load_hatecheck"),
    "hs-brexit": ("published.lewidi", "load_lewidi_groups"),
    "hs-brexit-annotators": ("published.lewidi", "load_lewidi_annotators"),
    "liar": ("published.liar", "load_liar"),
    "liar-binary": ("published.liar", "load_liar_binary"),
    "moralchoice": ("published.moral_choice", "load_moral_choice"),
    "opinionqa": ("published.opinion_qa", "load_opinion_qa"),
    "own": ("own", "load_own_data"),
}
TASK_NAMES = tuple(_LOADERS)
# The task that comes with the installation and needs no file.
PACKAGED_TASK = "gss"


def load_task(
    name: str,
    path: str | Path | None = None,
    perspectives: int | Collection[str] | None = None,
) -> Task:
    """Load a task from its source's own file.

    Args:
        name: Name of the task: gss (the packaged survey), own (your files), or a published one of
            `TASK_NAMES`, such as globalopinionqa.
        path: File of the task's source; for ``hs-brexit`` and ``liar`` also a folder with several
            splits, for ``own`` also a folder with items and feedback; None for ``gss``, which is
            packaged.
        perspectives: Keep these only (names, or how many: those with most items), and the items
            that one of them has answered; all if None.

    Raises:
        InputError: an unknown name or perspective, or the file is missing or malformed.
    """
    if name not in _LOADERS:
        advice = nearest(name, TASK_NAMES, len(TASK_NAMES))
        raise InputError(f"there is no task {shortened(name)}: {advice}")
    module, function = _LOADERS[name]
    load = getattr(import_module(f"saepd.tasks.{module}"), function)
    if (path is None) != (name == PACKAGED_TASK):
        wanted = "is packaged and takes no file" if path else "needs its file or folder: name it"
        raise InputError(f"the task {name} {wanted}")
    task: Task = load() if path is None else load(Path(path))
    return task if perspectives is None else task.only(perspectives)
