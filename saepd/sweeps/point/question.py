"""What a point asks: its task, the questions held out, and the feedback that is drawn."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import Draw, make_draws
from saepd.feedback.schema import Item
from saepd.sweeps.point.content import Stamp, stamp_of
from saepd.sweeps.space.parameters import TaskConfig
from saepd.tasks.loading import PACKAGED_TASK, load_task
from saepd.tasks.own import own_task
from saepd.tasks.task import Task

Stamps = tuple[Stamp | None, ...]


def task_of(config: TaskConfig) -> Task:
    """The task with the perspectives that take part; its file is read again when it has changed.

    Raises:
        InputError: whatever `load_task` refuses, or an unknown perspective.
    """
    return _task_of(config, _stamps(config))


@lru_cache(maxsize=4)
def _task_of(config: TaskConfig, _: Stamps) -> Task:
    if config.items is not None:
        feedback = None if config.feedback is None else Path(config.feedback)
        return own_task(Path(config.items), feedback).only(config.perspectives)
    return load_task(config.task or PACKAGED_TASK, config.data, config.perspectives)


def draw_of(task: TaskConfig, draw: DrawConfig) -> Draw:
    """Test questions and feedback of one point.

    Raises:
        InputError: too few questions for the feedback that is asked for.
    """
    return _draw_of(task, _stamps(task), draw)


@lru_cache(maxsize=256)
def _draw_of(task: TaskConfig, _: Stamps, draw: DrawConfig) -> Draw:
    return make_draws(task_of(task), replace(draw, draws=1))[0]


def _stamps(config: TaskConfig) -> Stamps:
    return tuple(stamp_of(name) for name in (config.data, config.items, config.feedback))


def asked_items(task: Task, draw: Draw) -> list[Item]:
    """The questions that a point scores: those of the test, and those of the feedback."""
    wanted = OrderedDict.fromkeys([*draw.test, *(row.item for row in draw.feedback)])
    return [task.by_id[id_] for id_ in wanted]
