import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from saepd.evaluation.experiment import Prediction
from saepd.evaluation.report import (
    EVERYBODY,
    evidence_dict,
    example_dict,
    markdown_table,
    result_rows,
)
from saepd.features.evidence import LatentEvidence
from saepd.feedback.schema import Item
from saepd.metrics.distances import bootstrap_interval

METHODS = ("zero-shot", "train-mean", "new")
PERSPECTIVES = ("left", "right")
N_ITEMS = 6


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    items = [
        Item(id=f"q{i}", prompt="So?", options=tuple("abcd"[: 2 + i % 3])) for i in range(N_ITEMS)
    ]
    gold = {
        (p, item.id): rng.dirichlet(np.ones(len(item.options)))
        for p in PERSPECTIVES
        for item in items
    }
    return [
        Prediction(
            method,
            perspective,
            item,
            rng.dirichlet(np.ones(len(item.options))),
            gold[perspective, item.id],
        )
        for method in METHODS
        for perspective in PERSPECTIVES
        for item in items
    ]


def own(predictions, method, perspective):
    names = PERSPECTIVES if perspective == EVERYBODY else (perspective,)
    return [p for p in predictions if p.method == method and p.perspective in names]


def distances(predictions):
    return np.array([jensenshannon(p.predicted, p.gold, base=2) for p in predictions])


def test_one_row_for_each_method_and_perspective_and_one_over_all(predictions):
    rows = result_rows(predictions, seed=0)
    assert [(r["method"], r["perspective"]) for r in rows] == [
        (method, name) for method in METHODS for name in (*PERSPECTIVES, EVERYBODY)
    ]
    # Two perspectives on one question are still one question.
    assert {r["n_items"] for r in rows} == {N_ITEMS}


def test_numbers_are_those_of_the_predictions(predictions):
    for row in result_rows(predictions, seed=3):
        chosen = own(predictions, row["method"], row["perspective"])
        values, questions = distances(chosen), [p.item.id for p in chosen]
        assert row["js_distance"] == pytest.approx(values.mean())
        expected = bootstrap_interval(values, questions=questions, seed=3)
        assert row["js_ci"] == pytest.approx([expected.low, expected.high])
        assert row["js_ci"][0] < row["js_distance"] < row["js_ci"][1]
        moved = [np.abs(p.predicted - p.gold).sum() / 2 for p in chosen]
        assert row["tv"] == pytest.approx(np.mean(moved))
        right = [p.predicted.argmax() == p.gold.argmax() for p in chosen]
        assert row["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("baseline", ["zero-shot", "train-mean"])
def test_differences_are_paired_by_question(predictions, baseline):
    key = f"js_minus_{baseline.replace('-', '_')}"
    for row in result_rows(predictions, seed=3):
        if row["method"] == baseline:
            assert key not in row
            continue
        chosen = own(predictions, row["method"], row["perspective"])
        against = distances(chosen) - distances(own(predictions, baseline, row["perspective"]))
        expected = bootstrap_interval(against, questions=[p.item.id for p in chosen], seed=3)
        assert row[key] == pytest.approx(list(expected))
        assert row[key][1] < row[key][0] < row[key][2]


def test_a_method_that_says_what_a_baseline_says_is_no_better(predictions):
    twin = [
        Prediction("twin", p.perspective, p.item, p.predicted, p.gold)
        for p in predictions
        if p.method == "zero-shot"
    ]
    rows = result_rows([*predictions, *twin], seed=0)
    assert [r["js_minus_zero_shot"] for r in rows if r["method"] == "twin"] == [[0, 0, 0]] * 3


def test_the_seed_moves_the_intervals_and_nothing_else(predictions):
    tables = [result_rows(predictions, seed=seed) for seed in (0, 0, 1)]
    assert tables[0] == tables[1]
    for one, other in zip(tables[0], tables[2], strict=True):
        assert one["js_ci"] != other["js_ci"]
        for name in ("js_distance", "tv", "accuracy", "n_items"):
            assert one[name] == other[name]


def test_rows_are_json(predictions):
    rows = result_rows(predictions, seed=0)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_the_table_is_over_everybody_best_first():
    def row(method, js, **more):
        return {
            "method": method,
            "perspective": EVERYBODY,
            "js_distance": js,
            "js_ci": [js - 0.1, js + 0.1],
            "tv": js / 2,
            "accuracy": 0.456,
            **more,
        }

    rows = [
        row("zero-shot", 0.4),
        row("worse", 0.5, js_minus_zero_shot=[0.1, 0.05, 0.15]),
        row("better", 0.3004, js_minus_zero_shot=[-0.0996, -0.2, 0.01]),
        row("better", 0.0, js_minus_zero_shot=[-1, -1, -1]) | {"perspective": "left"},
    ]
    assert markdown_table(rows).splitlines()[2:] == [
        "| better | 0.300 | 0.200 to 0.400 | 0.150 | 0.46 | -0.100 [-0.200, +0.010] |",
        "| zero-shot | 0.400 | 0.300 to 0.500 | 0.200 | 0.46 |  |",
        "| worse | 0.500 | 0.400 to 0.600 | 0.250 | 0.46 | +0.100 [+0.050, +0.150] |",
    ]
    header, rule = markdown_table(rows).splitlines()[:2]
    assert header.count("|") == rule.count("|") == 7
    assert "interval" in header


def test_an_example_is_json():
    item = Item(id="q", prompt="So?", options=("Yes", "No"))
    example = SimpleNamespace(
        item=item,
        branches={"base": np.array([0.5, 0.5]), "left": np.array([0.9, 0.1])},
        merged=np.array([0.7, 0.3]),
        gold={"left": np.array([1.0, 0.0])},
    )
    assert json.loads(json.dumps(example_dict(example))) == {
        "item": "q",
        "prompt": "So?",
        "options": ["Yes", "No"],
        "branches": {"base": [0.5, 0.5], "left": [0.9, 0.1]},
        "pluralistic": [0.7, 0.3],
        "people": {"left": [1.0, 0.0]},
    }


@pytest.mark.parametrize(("stability", "written"), [(0.75, 0.75), (float("nan"), None)])
def test_evidence_is_json_also_where_it_was_not_screened(stability, written):
    evidence = LatentEvidence(
        latent=7,
        perspective="left",
        tokens=[" a", "b"],
        contexts=[("some text", 1.5)],
        score=1.25,
        effect={"left": 0.5, "right": -0.25},
        stability=stability,
        density=0.125,
        output_score=-0.5,
    )
    assert json.loads(json.dumps(evidence_dict(evidence), allow_nan=False)) == {
        "latent": 7,
        "perspective": "left",
        "tokens": [" a", "b"],
        "contexts": [{"text": "some text", "activation": 1.5}],
        "score": 1.25,
        "effect": {"left": 0.5, "right": -0.25},
        "stability": written,
        "density": 0.125,
        "output_score": -0.5,
    }
