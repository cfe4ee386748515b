from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from saepd.common.errors import InputError
from saepd.evaluation.experiment import MERGED, METHODS, ExperimentConfig, run_experiment
from saepd.features.config import FeatureConfig
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.survey import folds
from saepd.fit.config import FitConfig

PERSPECTIVES = ("left", "right")
CHOICES = (("Yes", "No"), ("More", "Less", "Same"))
CONFIG = ExperimentConfig(
    n_feedback=5,
    n_folds=3,
    few_shot_tokens=110,
    coefficients=(1.0, 4.0),
    fit=FitConfig(FeatureConfig(k=4, n_bootstrap=8, min_stability=0.0, max_density=1.0)),
)
DRAWN = ("train-mean", "few-shot prompt", "random latents", "SAE directions", "pluralistic")


def gold(seed, n):
    shares = np.random.default_rng(seed).dirichlet(np.ones(n))
    return tuple((shares / shares.sum()).tolist())


ITEMS = [
    Item(
        id=f"q{i}",
        prompt=f"Q{i}?",
        options=CHOICES[i % 2],
        distributions={p: gold(10 * i + j, 2 + i % 2) for j, p in enumerate(PERSPECTIVES)},
    )
    for i in range(6)
]
FEEDBACK = [
    Feedback(
        id=f"{perspective}-{item.id}-{person}",
        perspective=perspective,
        item=item.id,
        prompt=item.prompt,
        options=item.options,
        answer=item.options[(person + (perspective == "left")) % len(item.options)],
    )
    for perspective in PERSPECTIVES
    for item in ITEMS
    for person in range(3)
]


@pytest.fixture(scope="module")
def sae(random_sae):
    return random_sae(d_sae=24)


@pytest.fixture(scope="module")
def outcome(llama, sae):
    return run_experiment(llama, sae, ITEMS, FEEDBACK, CONFIG)


def predicted(outcome):
    return {(p.method, p.perspective, p.item.id): p.predicted for p in outcome.predictions}


def changed(one, other, methods=METHODS):
    """Items for which any of the methods says something else."""
    found = set()
    for key, p in predicted(one).items():
        if key[0] in methods and not np.allclose(p, predicted(other)[key], atol=1e-4):
            found.add(key[2])
    return found


def test_every_item_is_predicted_once_by_every_method_for_every_perspective(outcome):
    keys = [(p.method, p.perspective, p.item.id) for p in outcome.predictions]
    assert len(keys) == len(set(keys)) == len(METHODS) * len(PERSPECTIVES) * len(ITEMS)
    assert {method for method, _, _ in keys} == set(METHODS)
    assert set(MERGED) < set(METHODS)
    by_id = {item.id: item for item in ITEMS}
    for p in outcome.predictions:
        assert p.item == by_id[p.item.id]
        np.testing.assert_allclose(p.gold, p.item.distributions[p.perspective])


def test_every_prediction_is_a_distribution_over_the_items_options(outcome):
    for p in outcome.predictions:
        assert p.predicted.shape == (len(p.item.options),)
        assert (p.predicted >= 0).all()
        assert p.predicted.sum() == pytest.approx(1, abs=1e-5)


def test_methods_differ_and_merges_are_for_everybody(outcome):
    found = predicted(outcome)
    for item in ITEMS:
        assert found["uniform", "left", item.id].tolist() == [1 / len(item.options)] * len(
            item.options
        )
        for method in (*MERGED, "uniform"):
            left, right = (found[method, p, item.id] for p in PERSPECTIVES)
            np.testing.assert_array_equal(left, right)
    for method in ("train-mean", "few-shot prompt", "SAE directions", "dense difference in means"):
        apart = [
            np.abs(found[method, "left", i.id] - found[method, "right", i.id]).max() for i in ITEMS
        ]
        assert max(apart) > 1e-3, method
    for one, other in pairwise(METHODS):
        rows = [
            np.abs(found[one, p, i.id] - found[other, p, i.id]).max()
            for p in PERSPECTIVES
            for i in ITEMS
        ]
        assert max(rows) > 1e-3, (one, other)


@pytest.mark.parametrize("fold", range(CONFIG.n_folds))
def test_what_people_said_about_a_held_out_item_is_never_seen(llama, sae, outcome, fold):
    held_out = set(folds(ITEMS, CONFIG.n_folds, CONFIG.seed)[fold])
    assert len(held_out) == 2

    def turned(row):
        last = row.options[-1]
        return row.model_copy(update={"answer": row.options[0] if row.answer == last else last})

    planted = [turned(row) if row.item in held_out else row for row in FEEDBACK]
    assert [row.id for row in planted] == [row.id for row in FEEDBACK]
    other = run_experiment(llama, sae, ITEMS, planted, CONFIG)
    affected = changed(outcome, other)
    assert not affected & held_out
    # It is seen where it may be: by the folds that hold out something else.
    assert affected == {item.id for item in ITEMS} - held_out


def test_gold_is_not_seen_at_all(llama, sae, outcome):
    moved = [
        item.model_copy(
            update={"distributions": {p: gold(99, len(item.options)) for p in PERSPECTIVES}}
        )
        for item in ITEMS
    ]
    other = run_experiment(llama, sae, moved, FEEDBACK, CONFIG)
    assert changed(outcome, other) == set()
    assert any(
        not np.allclose(a.gold, b.gold)
        for a, b in zip(outcome.predictions, other.predictions, strict=True)
    )


def test_the_seed_decides_and_uniform_does_not_care(llama, sae, outcome):
    again, other = (
        run_experiment(llama, sae, ITEMS, FEEDBACK, replace(CONFIG, seed=seed)) for seed in (0, 7)
    )
    for key, p in predicted(again).items():
        np.testing.assert_allclose(p, predicted(outcome)[key], atol=1e-6)
    for method in DRAWN:
        assert changed(outcome, other, [method]), method
    assert changed(outcome, other, ["uniform"]) == set()
    for key, p in predicted(other).items():
        if key[0] == "uniform":
            np.testing.assert_array_equal(p, predicted(outcome)[key])


def test_the_fit_and_the_example_are_of_the_first_fold(outcome):
    first = set(folds(ITEMS, CONFIG.n_folds, CONFIG.seed)[0])
    rows = outcome.fit.pairs.rows
    assert len(rows) == CONFIG.n_feedback * len(PERSPECTIVES)
    assert not {row.item for row in rows} & first
    assert [d.perspective for d in outcome.fit.directions] == list(PERSPECTIVES)
    assert {d.coefficient for d in outcome.fit.directions} <= set(CONFIG.coefficients)
    example, found = outcome.example, predicted(outcome)
    assert example.item.id in first
    assert list(example.branches) == ["base", *PERSPECTIVES]
    for p in PERSPECTIVES:
        np.testing.assert_allclose(example.branches[p], found["SAE directions", p, example.item.id])
        np.testing.assert_allclose(example.gold[p], example.item.distributions[p])
    np.testing.assert_allclose(example.merged, found["pluralistic", "left", example.item.id])
    # Of the fold's items it is the one on which perspectives are furthest apart.
    apart = {
        item.id: np.abs(np.subtract(*item.distributions.values())).max()
        for item in ITEMS
        if item.id in first
    }
    assert example.item.id == max(apart, key=apart.get)


def test_the_prompts_examples_are_counted_and_progress_is_told(llama, sae):
    told = []
    config = replace(CONFIG, n_folds=2, few_shot_tokens=60)
    outcome = run_experiment(llama, sae, ITEMS, FEEDBACK, config, lambda *step: told.append(step))
    # Sixty tokens hold one example, and there is a prompt for each perspective and fold.
    assert outcome.n_few_shot == [1] * 4
    steps = [step for _, step, _ in told]
    assert steps == sorted(set(steps))
    assert {of for _, _, of in told} == {steps[-1]}
    assert steps[0] == 0


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"n_feedback": 13}, "cannot draw 13 rows of perspective 'left'"),
        ({"n_folds": 7}, "cannot split into 7 folds"),
        ({"n_folds": 1}, "cannot split into 1 folds"),
        ({"few_shot_tokens": 5}, "not one example fits into 5 tokens"),
    ],
)
def test_what_cannot_be_compared_is_refused(llama, sae, setting, match):
    with pytest.raises(InputError, match=match):
        run_experiment(llama, sae, ITEMS, FEEDBACK, replace(CONFIG, **setting))
