"""What a sweep may vary: the fields of the configuration dataclasses, under their own names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.evaluation.config import DrawConfig
from saepd.features.config import FeatureConfig
from saepd.fit.config import DirectionConfig, FitConfig
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.tasks.loading import PACKAGED_TASK, TASK_NAMES

# The task that is read from files of the user's own.
OWN_TASK = "own"


@dataclass(frozen=True)
class TaskConfig:
    """What is asked, and whose answers count.

    Attributes:
        task: Name of the task, one of `saepd.tasks.loading.TASK_NAMES`; the packaged survey if
            None. For questions of your own it is own, with their files as items and feedback.
        data: File or folder that a published task is read from; for task own, a folder with items
            and feedback in place of the two files.
        items: File of your own questions, for task own.
        feedback: File of people's answers to these questions, for task own; answers are drawn from
            the questions' distributions if None.
        perspectives: How many perspectives take part (those with most items), or their names.
    """

    task: str | None = None
    data: str | None = None
    items: str | None = None
    feedback: str | None = None
    perspectives: int | tuple[str, ...] = 10

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASK_NAMES:
            raise InputError(
                f"there is no task {shortened(self.task)}: {nearest(self.task, TASK_NAMES, 99)}"
            )
        if self.task != OWN_TASK and (self.items or self.feedback):
            given = "items" if self.items else "feedback"
            raise InputError(f"{given} is a file of your own: give it with task own")
        if self.task == OWN_TASK:
            if bool(self.items) == bool(self.data):
                raise InputError(
                    "task own needs your questions: give their file as items, or a folder with "
                    "items and feedback as data"
                )
            if self.feedback and not self.items:
                raise InputError("feedback is given without items: give both files, or a folder")
        elif (self.task in (None, PACKAGED_TASK)) != (self.data is None):
            given, missing = ("task", "data") if self.data is None else ("data", "task")
            raise InputError(f"{given} is given without {missing}: give both, or neither")
        if isinstance(self.perspectives, int):
            if self.perspectives < 1:
                raise InputError(f"perspectives is {self.perspectives}: ask for at least one")
        elif not self.perspectives or len(set(self.perspectives)) < len(self.perspectives):
            raise InputError(
                f"perspectives is {shortened(self.perspectives)}: name one or more, each once"
            )


@dataclass(frozen=True)
class PointConfig:
    """One point of a sweep: all that its numbers depend on.

    The draws are one: to repeat a point on other questions and feedback, sweep over ``seed``.

    Attributes:
        task: What is asked, and whose answers count.
        where: The model and the SAE.
        draw: What is held out, and how much feedback there is.
        fit: How feedback becomes directions.
        merge: How branches become one answer.
    """

    task: TaskConfig = field(default_factory=TaskConfig)
    where: ModelConfig = field(default_factory=ModelConfig)
    draw: DrawConfig = field(default_factory=lambda: DrawConfig(draws=1))
    fit: FitConfig = field(default_factory=FitConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)

    def __post_init__(self) -> None:
        # Before anything is loaded: a model is named with its SAE.
        _ = self.where.sae_source

    def flat(self) -> dict[str, Any]:
        """Every parameter by its name, as JSON values."""
        parts = {
            "": asdict(self.task) | asdict(self.where) | asdict(self.draw) | asdict(self.merge)
        }
        values = parts[""] | {k: v for part in asdict(self.fit).values() for k, v in part.items()}
        return json.loads(json.dumps({name: values[name] for name in parameter_types()}))


# Where each dataclass is in a `PointConfig`.
_PARTS: dict[tuple[str, ...], type] = {
    ("task",): TaskConfig,
    ("where",): ModelConfig,
    ("draw",): DrawConfig,
    ("fit", "features"): FeatureConfig,
    ("fit", "direction"): DirectionConfig,
    ("merge",): MergeConfig,
}
# What is no parameter: draws, because a point has one.
_FIXED = {"draws"}


@cache
def parameter_types() -> dict[str, Any]:
    """Name of every parameter -> its type, in the order of the pipeline."""
    types: dict[str, Any] = {}
    for part in _PARTS.values():
        hints = get_type_hints(part)
        types |= {f.name: hints[f.name] for f in fields(part) if f.name not in _FIXED}
    return types


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    # Else a whole number that is too long for a float becomes infinity.
    return TypeAdapter(parameter_types()[name], config=ConfigDict(allow_inf_nan=False))


def check_name(name: str) -> None:
    """Refuse what is no parameter.

    Raises:
        InputError: naming the nearest one that there is.
    """
    if name in _FIXED:
        raise InputError(f"{name} cannot be swept: a point has one draw; sweep over seed instead")
    if name not in parameter_types():
        raise InputError(
            f"there is no parameter {shortened(name)}: {nearest(name, parameter_types(), 99)}"
        )


def checked_value(name: str, value: Any) -> Any:
    """The value in the parameter's own type.

    JSON's types decide: 8 may stand for 8.0 and a list for a tuple, but "8" for no number.

    Raises:
        InputError: no such parameter, or a value of another type.
    """
    check_name(name)
    try:
        return _adapter(name).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        wanted = str(error)
        if isinstance(error, ValidationError):
            wanted = "; ".join(dict.fromkeys(e["msg"] for e in error.errors()))
        raise InputError(f"parameter {name} is {shortened(value)}: {wanted}") from error


def point_config(values: Mapping[str, Any]) -> PointConfig:
    """The point with these values, and the defaults for all else.

    Raises:
        InputError: an unknown name, or a value that its dataclass refuses.
    """
    checked = {name: checked_value(name, value) for name, value in values.items()}
    config = PointConfig()

    def part(kind: type, default: Any) -> Any:
        names = {f.name for f in fields(kind)}
        return replace(default, **{k: v for k, v in checked.items() if k in names})

    fit = replace(
        config.fit,
        features=part(FeatureConfig, config.fit.features),
        direction=part(DirectionConfig, config.fit.direction),
    )
    return PointConfig(
        task=part(TaskConfig, config.task),
        where=part(ModelConfig, config.where),
        draw=part(DrawConfig, config.draw),
        fit=fit,
        merge=part(MergeConfig, config.merge),
    )
