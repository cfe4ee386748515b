"""One draw: the questions that are held out, and the feedback that every method is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.item_cache import ItemCache
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import split_questions
from saepd.feedback.targets import answered
from saepd.feedback.texts import fingerprint
from saepd.models.wording import ReadoutConfig
from saepd.tasks.draws import draw_feedback, rows_to_draw
from saepd.tasks.task import Task

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

Computed = TypeVar("Computed")
Options = Float[np.ndarray, " options"]
# (item id, perspective) -> probabilities of the options; NaN where there is no readable answer.
Predictions = Mapping[tuple[str, str], Options]


@dataclass(frozen=True)
class Draw:
    """Ids of both sides, and the feedback, which is about the training side only."""

    seed: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True)
class Fold:
    """All that a method may see: everything but what people said about the test items.

    Attributes:
        task: With the gold of the training side only.
        train: Item ids that feedback could be drawn from.
        test: Item ids to predict.
        asked: (test item id, perspective) pairs to predict: those that have gold.
        feedback: Rows of all perspectives, n_feedback each.
        seed: For whatever a method draws.
        cache: What is known about items without anybody's answers, shared by all draws.
        few_shot_tokens: Most tokens of examples in a few-shot prompt.
    """

    task: Task = field(repr=False)
    train: tuple[str, ...]
    test: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    feedback: tuple[Feedback, ...]
    seed: int
    cache: ItemCache = field(repr=False)
    few_shot_tokens: int = 512
    _shared: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    @property
    def model(self) -> TransformerBridge:
        """The language model."""
        return self.cache.model

    @property
    def sae(self) -> SAE[Any]:
        """The dictionary, the first of several."""
        return self.cache.sae

    @property
    def readout(self) -> ReadoutConfig:
        """How options are read, in the task's wording."""
        return ReadoutConfig(template=self.task.wording.plain)

    @property
    def perspectives(self) -> tuple[str, ...]:
        """Those who gave feedback."""
        return tuple(self._rows)

    def rows(self, perspective: str) -> list[Feedback]:
        """One perspective's feedback."""
        return self._rows.get(perspective, [])

    @cached_property
    def _rows(self) -> dict[str, list[Feedback]]:
        """Each perspective's feedback, in one walk over all of it."""
        rows: dict[str, list[Feedback]] = {}
        for row in self.feedback:
            rows.setdefault(row.perspective, []).append(row)
        return rows

    @cached_property
    def population_of(self) -> dict[str, tuple[str, ...]]:
        """Test item id -> the perspectives whose answer to it is asked for."""
        names_of: dict[str, list[str]] = {}
        for id_, name in self.asked:
            names_of.setdefault(id_, []).append(name)
        return {id_: tuple(names) for id_, names in names_of.items()}

    def targets(self, rows: Sequence[Feedback]) -> list[Options]:
        """What was answered: one-hot, or whole distributions."""
        return [answered(row) for row in rows]

    def once(self, name: str, compute: Callable[[], Computed]) -> Computed:
        """What several methods need, computed by the first of them."""
        if name not in self._shared:
            self._shared[name] = compute()
        return self._shared[name]

    def predict(self, one: Callable[[Item, str], Options]) -> Predictions:
        """Ask a function of item and perspective about every pair."""
        return {(id_, name): one(self.task.by_id[id_], name) for id_, name in self.asked}


def make_draws(task: Task, config: DrawConfig) -> list[Draw]:
    """Split whole questions and draw feedback from the training side, once for each seed.

    Raises:
        InputError: a perspective has given too few answers, or there are no questions to test on.
    """
    answers = rows_to_draw(task, config.feedback_kind)
    total = sum(answers.values(), Counter())
    for name in task.perspectives:
        if total[name] < config.n_feedback:
            raise InputError(
                f"perspective {shortened(name)} of the task {task.name} has {total[name]} "
                f"{config.feedback_kind}(s), which is too few for n_feedback {config.n_feedback}: "
                "draw fewer, or leave it out of the perspectives"
            )
    return [_draw(task, config, answers, config.seed + number) for number in range(config.draws)]


def fold_of(draw: Draw, task: Task, cache: ItemCache, few_shot_tokens: int) -> Fold:
    """What methods see of a draw; the test items come without their gold."""
    held_out, train = set(draw.test), set(draw.train)
    items = tuple(
        item.model_copy(update={"distributions": {}, "counts": {}}) if item.id in held_out else item
        for item in task.items
        if item.id in held_out or item.id in train
    )
    asked = tuple(
        (id_, name)
        for id_ in draw.test
        for name in task.perspectives
        if name in task.by_id[id_].distributions
    )
    feedback = tuple(row for row in task.feedback if row.item in train)
    seen = replace(task, items=items, feedback=feedback)
    return Fold(
        seen, draw.train, draw.test, asked, draw.feedback, draw.seed, cache, few_shot_tokens
    )


def _draw(
    task: Task, config: DrawConfig, answers: Mapping[str, Mapping[str, int]], seed: int
) -> Draw:
    train, test = split_questions(
        task.items,
        config.test_share,
        seed,
        task.groups,
        keep=config.n_feedback,
        answered=answers,
    )
    known = [id_ for id_ in test if task.by_id[id_].distributions]
    if not known:
        raise InputError(
            f"no test question of the task {task.name} has a gold distribution: use another seed, "
            "or give more items with distributions"
        )
    chosen = sorted(known, key=lambda id_: (fingerprint(str(seed), "limit", id_), id_))
    kept = set(chosen[: config.limit])
    feedback = draw_feedback(task, train, config.n_feedback, config.feedback_kind, seed)
    return Draw(seed, tuple(train), tuple(i for i in test if i in kept), tuple(feedback))
