from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.evaluation.methods import fitted, population
from saepd.evaluation.methods.choice import methods_of
from saepd.evaluation.methods.registry import METHODS
from saepd.fit.config import LearningConfig
from saepd.merge.config import MergeConfig
from saepd.readout.options import read_options
from saepd.readout.softmax import option_features

FEW = LearningConfig(
    n_latents=4, shared=(0.001,), own=(0.02,), biases=(0.01,), own_readout=(0.1,), anyway=True
)
FOR_ALL = [id_ for id_, method in METHODS.items() if method.for_population]


@pytest.fixture
def fold(opinion_fold, monkeypatch):
    """A fold in which one test item is asked of north alone."""
    monkeypatch.setattr(fitted, "LearningConfig", lambda: FEW)
    [first, *_] = opinion_fold.test
    asked = tuple(pair for pair in opinion_fold.asked if pair != (first, "south"))
    task = replace(opinion_fold.task, population={"north": 3.0, "south": 1.0})
    return replace(opinion_fold, asked=asked, task=task)


def read(fold, names):
    """What an own pass says of the base's and the branches' answers, by item."""
    learned = fitted.fitted_directions(fold, "latents")
    items = [fold.task.by_id[id_] for id_ in fold.test]
    rows = read_options(fold.model, items, [learned[name] for name in names], fold.readout)
    return {i.id: row.log_probs().exp().numpy() for i, row in zip(items, rows, strict=True)}


def test_merges_are_of_the_branches_of_those_who_are_asked(fold):
    found = population.predict_merged(fold, MergeConfig("mixture"))
    both, north = read(fold, ["north", "south"]), read(fold, ["north"])
    [first, *others] = fold.test
    np.testing.assert_allclose(found[first, "north"], north[first].mean(0), atol=1e-4)
    for id_ in others:
        np.testing.assert_allclose(found[id_, "north"], both[id_].mean(0), atol=1e-4)
        np.testing.assert_array_equal(found[id_, "north"], found[id_, "south"])


def test_fitted_weights_leave_out_the_base(fold):
    weights = population.merge_weights(fold)
    assert sum(weights.values()) == pytest.approx(1)
    found, both = population.predict_weighted(fold), read(fold, ["north", "south"])
    for id_ in fold.test[1:]:
        expected = weights["north"] * both[id_][1] + weights["south"] * both[id_][2]
        np.testing.assert_allclose(found[id_, "south"], expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "parts"), [("sum", (1.0, 1.0)), ("mean", (0.75, 0.25))])
def test_what_is_added_runs_as_one_branch_with_a_readout_of_its_own(fold, kind, parts):
    learned = fitted.fitted_directions(fold, "latents")
    vector = sum(part * learned[n].constant for n, part in zip(learned, parts, strict=True))
    [branch] = population.added_branch(fold, kind).values()
    written = sum(direction.constant for direction in branch)
    np.testing.assert_allclose(written.numpy(), vector.numpy(), atol=1e-5)
    assert {direction.readout for direction in branch} == {branch[0].readout}
    found = population.predict_added(fold, kind)
    weights = branch[0].readout.own
    for id_ in fold.test:
        item = fold.task.by_id[id_]
        [(scores, _)] = score_continuations(
            fold.model, [fold.cache.prompt(item)], [item.options], [branch]
        )
        base, steered = scores.double().numpy()
        logits = option_features(base, len(weights) - 2) @ weights + steered - base
        np.testing.assert_allclose(np.log(found[id_, "north"]), log_softmax(logits), atol=1e-3)


def test_the_readout_of_what_is_added_is_one_for_everybodys_feedback(fold):
    [branch] = population.added_branch(fold, "sum").values()
    own, items = branch[0].readout.own, {row.item: row.as_item() for row in fold.feedback}

    def loss(weights):
        total = 0.0
        for row in fold.feedback:
            item = items[row.item]
            [(scores, _)] = score_continuations(
                fold.model, [fold.cache.prompt(item)], [item.options], [branch]
            )
            base, steered = scores.double().numpy()
            logits = option_features(base, len(weights) - 2) @ weights + steered - base
            total -= np.array(row.distribution) @ log_softmax(logits)
        return total / len(fold.feedback) + population.POOLED_RIDGE * np.square(weights[1:]).sum()

    best = loss(own)
    for axis in range(len(own)):
        for step in (-0.1, 0.1):
            assert loss(own + step * np.eye(len(own))[axis]) > best


def test_a_method_for_all_needs_several_perspectives_and_something_to_beat(opinions):
    for id_ in FOR_ALL:
        with pytest.raises(InputError, match="has one: leave it out"):
            methods_of(opinions.only(["north"]), [id_, "zero-shot"])
    assert not set(FOR_ALL) & set(methods_of(opinions.only(["north"]), ["all"]))
    with pytest.raises(InputError, match="nothing to compare what is for the whole population"):
        methods_of(opinions, FOR_ALL)
