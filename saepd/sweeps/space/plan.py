"""What a sweep will cost, told before it runs and before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.sweeps.backends.schedule import branches_group, prefix_group
from saepd.sweeps.point.question import asked_items, draw_of, task_of
from saepd.sweeps.results.store import Outcome
from saepd.sweeps.space.parameters import PointConfig, point_config
from saepd.sweeps.space.points import Point

KINDS = ("prefix", "feedback", "directions", "branches")


@dataclass(frozen=True)
class Plan:
    """The stages of a sweep's points.

    Attributes:
        n_points: All of them.
        n_finished: That are in the store already.
        stages: Kind -> how many different ones the unfinished points need.
        passes: Texts that run for these, in the units of one text through one branch.
        passes_alone: The same if every point computed its stages anew.
    """

    n_points: int
    n_finished: int
    stages: dict[str, int]
    passes: int
    passes_alone: int


def make_plan(points: Sequence[Point], finished: Collection[str]) -> Plan:
    """Count stages and what runs in them; what an earlier sweep left in the cache costs less still.

    Raises:
        InputError: a task that cannot be read, or too little feedback in it.
    """
    costs: dict[tuple[str, str], int] = {}
    alone = 0
    waiting = [point for point in points if point.key not in finished]
    for point in waiting:
        for kind, (key, n) in _stages(point.config).items():
            costs[kind, key] = n
            alone += n
    stages = {kind: sum(k == kind for k, _ in costs) for kind in KINDS}
    return Plan(len(points), len(points) - len(waiting), stages, sum(costs.values()), alone)


def passes_computed(outcome: Outcome) -> tuple[int, float]:
    """Texts times branches that ran for a finished point, and the seconds it took."""
    costs = _stages(point_config(outcome.parameters))
    stages = outcome.result["stages"]
    new = [stage["kind"] for stage in stages if not stage["reused"]]
    return sum(costs[kind][1] for kind in new), outcome.result["seconds"]


def _stages(config: PointConfig) -> dict[str, tuple[str, int]]:
    """Kind -> what tells the stage apart, and the texts that run in it."""
    task, draw = task_of(config.task), draw_of(config.task, config.draw)
    n_items = len(asked_items(task, draw)) + len(NEUTRAL_PROMPTS)
    asked = {row.item for row in draw.feedback}
    # Each row's question with its answer, and what it is compared with.
    answers = {(row.item, row.answer or row.comment or "") for row in draw.feedback}
    features = config.fit.features
    if features.contrast == "options" or any(row.distribution for row in draw.feedback):
        n_texts = sum(1 + len(task.by_id[id_].options) for id_ in asked)
    else:
        n_texts = len(asked) + len(answers)
    unit = replace(config.fit, direction=replace(config.fit.direction, coefficient=1.0))
    shared = [asdict(config.task), asdict(config.where), asdict(config.draw)]
    encoded = json.dumps([*shared, features.contrast == "options", features.read_at])
    fitted = json.dumps([*shared, asdict(unit)])
    n_budget = (
        len(NEUTRAL_PROMPTS) * len(task.perspectives) if config.fit.direction.kl_budget else 0
    )
    return {
        "prefix": (prefix_group(config), n_items),
        "feedback": (encoded, n_texts),
        "directions": (fitted, n_budget),
        "branches": (branches_group(config), n_items * (1 + len(task.perspectives))),
    }
