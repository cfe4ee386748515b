"""What a sweep will cost, told before it runs and before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.common.errors import InputError
from saepd.sweeps.point.dependencies import STAGES, keys_by_settings
from saepd.sweeps.point.question import asked_items, draw_of, task_of
from saepd.sweeps.results.changes import changes
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.parameters import PointConfig, point_config
from saepd.sweeps.space.points import SweepPoint


@dataclass(frozen=True)
class SweepPlan:
    """The stages of a sweep's points.

    Attributes:
        n_points: Points of the sweep.
        n_finished: Points that are in the store already.
        stages: Kind of stage -> how many different ones the unfinished points need.
        passes: Texts that run for these stages, times the branches that they run through.
        passes_alone: Texts times branches that would run if every point computed its stages anew.
    """

    n_points: int
    n_finished: int
    stages: dict[str, int]
    passes: int
    passes_alone: int


def plan_sweep(points: Sequence[SweepPoint], finished: Collection[str]) -> SweepPlan:
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
    counts = Counter(kind for kind, _ in costs)
    # Reading branches costs no pass.
    stages = {kind: counts[kind] for kind in STAGES if kind != "readout"}
    return SweepPlan(len(points), len(points) - len(waiting), stages, sum(costs.values()), alone)


def seconds_a_pass(outcomes: Sequence[PointOutcome]) -> float | None:
    """How long one text under one branch took in finished points; None if that cannot be told."""
    known = [
        outcome
        for outcome, changed in zip(outcomes, changes(outcomes), strict=True)
        if not (outcome.failed or changed)
    ]
    try:
        measured = [passes_computed(outcome) for outcome in known]
    except InputError:
        # An earlier sweep's data is no longer where it was.
        return None
    passes = sum(n for n, _ in measured)
    return sum(s for _, s in measured) / passes if passes else None


def passes_computed(outcome: PointOutcome) -> tuple[int, float]:
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
    if config.fit.features.contrast == "options" or any(row.distribution for row in draw.feedback):
        n_texts = sum(1 + len(task.by_id[id_].options) for id_ in asked)
    else:
        n_texts = len(asked) + len(answers)
    n_perspectives = len(task.perspectives)
    budgeted = config.fit.direction.kl_budget > 0
    costs = {
        "prefix": n_items,
        "feedback": n_texts,
        "directions": len(NEUTRAL_PROMPTS) * n_perspectives if budgeted else 0,
        "branches": n_items * (1 + n_perspectives),
    }
    keys = keys_by_settings(config)
    return {kind: (keys[kind], n) for kind, n in costs.items()}
