import numpy as np
import pytest
import torch

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.evaluation.fold import Draw
from saepd.feedback.schema import Feedback, Item
from saepd.merge.config import MergeConfig
from saepd.sweeps.point.measure import measure
from saepd.sweeps.point.stages import ScoredPoint
from saepd.tasks.published.labels import yes_no_wording
from saepd.tasks.task import LABEL_METRICS, Task

PERSPECTIVES = ("north", "south")


def labelled_point(signal):
    """South's branch raises Yes where the label is Yes; the base knows nothing."""
    rng = np.random.default_rng(0)
    items, scores = [], {}
    for i in range(60):
        yes = i % 2 == 0
        gold = (0.0, 1.0) if yes else (1.0, 0.0)
        item = Item(
            id=f"t{i}",
            prompt=f"text {i}",
            options=("No", "Yes"),
            distributions=dict.fromkeys(PERSPECTIVES, gold),
        )
        items.append(item)
        noise = rng.normal(size=(3, 1)) * [0, 1]
        noise[2, 1] += signal * yes
        scores[item.id] = torch.tensor(noise, dtype=torch.float32)
    task = Task(
        "shorts",
        tuple(items),
        yes_no_wording("Text", "Is it short", {}),
        LABEL_METRICS,
        positive="Yes",
    )
    feedback = tuple(
        Feedback(
            id=f"{p}{i}",
            item=f"t{i}",
            perspective=p,
            prompt=f"text {i}",
            options=("No", "Yes"),
            answer="Yes" if i % 2 == 0 else "No",
        )
        for p in PERSPECTIVES
        for i in range(20)
    )
    draw = Draw(
        0, tuple(f"t{i}" for i in range(20)), tuple(f"t{i}" for i in range(20, 60)), feedback
    )
    directions = [
        Direction(p, "blocks.1.hook_resid_post", AddVector(torch.ones(4))) for p in PERSPECTIVES
    ]
    return ScoredPoint(task, draw, items, scores, torch.tensor([0.5, 1.5]), directions, [], {})


def test_a_branch_that_knows_the_labels_gains_over_the_base():
    found = measure(labelled_point(6.0), MergeConfig("mixture"), 0)
    south = next(row for row in found["rows"] if row["perspective"] == "south")
    assert south["own_gain"] > 0.3
    assert found["metrics"]["auroc"] > 0.8
    low, high = found["intervals"]["gain"]
    assert 0 < low < found["metrics"]["gain"] < high
    assert found["metrics"]["kl_to_base"] == 1
    assert south["kl_to_base"] == 1.5


def test_a_branch_that_knows_nothing_gains_nothing_for_certain():
    found = measure(labelled_point(0.0), MergeConfig("mixture"), 0)
    low, high = found["intervals"]["gain"]
    assert low < 0.1 and high > -0.1
    assert "js_distance" not in found["metrics"]


def test_given_weights_are_for_all_branches():
    found = measure(labelled_point(6.0), MergeConfig("weighted", weights=(0.2, 0.0, 0.8)), 0)
    assert "with_base_gain" not in found["metrics"]
    assert found["metrics"]["gain"] == pytest.approx(
        measure(labelled_point(6.0), MergeConfig("weighted", weights=(0.2, 0.0, 0.8)), 0)[
            "metrics"
        ]["gain"]
    )
