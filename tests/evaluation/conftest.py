"""A task of invented questions, and what a tiny model makes of it."""

import numpy as np
import pytest

from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import fold_of, make_draws
from saepd.evaluation.item_cache import ItemCache
from saepd.feedback.schema import Item
from saepd.tasks.published.labels import yes_no_wording
from saepd.tasks.task import LABEL_METRICS, OPINION_METRICS, SURVEY_WORDING, Task

PERSPECTIVES = ("north", "south")
CHOICES = (("Yes", "No"), ("More", "Less", "Same"))
DRAWS = DrawConfig(n_feedback=6, draws=2, feedback_kind="distribution")


def gold(seed, n):
    shares = np.random.default_rng(seed).dirichlet(np.ones(n))
    return tuple((shares / shares.sum()).tolist())


def opinion_items(n=14):
    return tuple(
        Item(
            id=f"q{i}",
            prompt=f"Is soup {i} good?",
            options=CHOICES[i % 2],
            distributions={p: gold(10 * i + j, 2 + i % 2) for j, p in enumerate(PERSPECTIVES)},
        )
        for i in range(n)
    )


@pytest.fixture(scope="session")
def opinions():
    items = opinion_items()
    ordinal = {item.id: (0, 1) for item in items if len(item.options) == 2}
    return Task("soups", items, SURVEY_WORDING, OPINION_METRICS, ordinal=ordinal)


@pytest.fixture(scope="session")
def labels():
    """Two annotators, of whom one is sometimes in two minds; ten questions on each side."""
    items = tuple(
        Item(
            id=f"t{i}",
            prompt=f"{'aaa' if i % 3 else 'zzz'} {i}",
            options=("No", "Yes"),
            topic=f"kind {i % 3}",
            distributions={
                "north": (0.0, 1.0) if i % 3 else (1.0, 0.0),
                "south": (0.25, 0.75) if i % 2 else (0.6, 0.4),
            },
        )
        for i in range(20)
    )
    wording = yes_no_wording("Text", "Is it short", {})
    return Task("shorts", items, wording, LABEL_METRICS, positive="Yes")


@pytest.fixture(scope="session")
def sae(random_sae):
    return random_sae(d_sae=24)


@pytest.fixture(scope="session")
def fold_on(llama, sae):
    """The first draw of a task, by a configuration."""

    def make(task, config=DRAWS, few_shot_tokens=150):
        [draw, *_] = make_draws(task, config)
        ids = [item.id for item in task.items]
        return fold_of(draw, task, ItemCache(llama, sae, task, ids, ids), few_shot_tokens)

    return make


@pytest.fixture(scope="session")
def opinion_fold(fold_on, opinions):
    return fold_on(opinions)


@pytest.fixture(scope="session")
def label_fold(fold_on, labels):
    return fold_on(labels, DrawConfig(n_feedback=10, draws=1, feedback_kind="distribution"))
