from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from saepd.branches.run import score_continuations
from saepd.directions.edits import Reconstruct
from saepd.evaluation.methods import merged, nulls, steered
from saepd.evaluation.methods.registry import METHODS
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.fit.config import FitConfig
from saepd.fit.recipe import fit_pairs
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.models.wording import ReadoutConfig


@pytest.fixture(scope="module")
def fold(opinion_fold):
    return replace(opinion_fold)


def hooked(fold, item, branch):
    """Option scores under a branch, from a pass of its own."""
    prompt = f"A survey asked: {item.prompt}\nMost people answered:"
    [(scores, _)] = score_continuations(fold.model, [prompt], [item.options], [branch])
    return scores.double().numpy()


def test_directions_are_those_of_the_folds_feedback(fold):
    pairs = encode_pairs(fold.model, fold.sae, fold.feedback, FeatureConfig(), ReadoutConfig())
    expected = fit_pairs(fold.model, fold.sae, pairs, FitConfig()).directions
    for ours, theirs in zip(steered.fold_fit(fold).directions, expected, strict=True):
        assert ours.perspective == theirs.perspective
        torch.testing.assert_close(ours.constant, theirs.constant)


def test_the_task_words_the_prompts(label_fold):
    config = steered.fit_config(label_fold)
    assert config.readout.template == label_fold.task.wording.plain
    [row, *_] = label_fold.feedback
    text = steered.fold_pairs(label_fold).positive_texts[0]
    assert text.startswith(label_fold.task.wording.text(row.prompt))


def test_one_perspective_alone_is_compared_with_the_other_options(fold_on, opinions):
    alone = fold_on(opinions.only(["north"]))
    assert steered.fit_config(alone).features.contrast == "options"
    [direction] = steered.fold_fit(alone).directions
    assert direction.perspective == "north"


def test_the_branch_is_kept_that_makes_the_feedback_likeliest(fold):
    found = steered.mean_differences(fold)["selected"]
    for name, directions in found.directions.items():
        rows = fold.rows(name)
        [unscaled] = [d for d in steered.fold_fit(fold).directions if d.perspective == name]
        losses = {}
        for coefficient in steered.COEFFICIENTS:
            branch = unscaled.scaled(coefficient * unscaled.coefficient)
            scores = {r.item: hooked(fold, r.as_item(), branch)[1] for r in rows}
            weights = nulls.fit_biases(fold, rows, nulls.OWN_RIDGE, scores=scores)
            losses[branch.coefficient] = -np.mean(
                [
                    np.array(r.distribution) @ np.log(nulls.read_biased(scores[r.item], weights))
                    for r in rows
                ]
            )
        assert losses[directions[0].coefficient] == pytest.approx(min(losses.values()), abs=1e-5)


@pytest.mark.parametrize("kind", ["selected", "dense", "random", "shuffled", "within budget"])
def test_groups_share_their_passes_and_nothing_else(fold, kind):
    within_budget = kind == "within budget"
    found = steered.within_budget(fold) if within_budget else steered.mean_differences(fold)[kind]
    for name, branch in found.directions.items():
        item = fold.task.by_id[fold.test[0]]
        alone = hooked(fold, item, branch)
        np.testing.assert_allclose(found.scores[item.id][0], alone[0], atol=1e-3)
        np.testing.assert_allclose(found.branch(item.id, name), alone[1], atol=1e-3)
        np.testing.assert_allclose(
            found.probabilities(item.id, name),
            nulls.read_biased(alone[1], found.readouts[name]),
            atol=1e-3,
        )


def test_the_papers_recipe_has_every_latent_at_every_position(fold):
    branches = METHODS["paper"].branches(fold)
    without = METHODS["paper-without-error-term"].branches(fold)
    answers = METHODS["paper"].predict(fold)
    for (id_, name), p in answers.items():
        [direction] = branches[name]
        assert direction.positions == "all" and direction.coefficient == 1
        assert len(direction.edit.latents) > 10
        scores = hooked(fold, fold.task.by_id[id_], direction)
        np.testing.assert_allclose(p, softmax(scores[1]), atol=1e-3)
        added, removed = without[name]
        assert isinstance(removed.edit, Reconstruct) and removed.positions == "all"
        torch.testing.assert_close(added.constant, direction.constant)


def test_reconstruction_alone_is_nobodys_in_particular(fold):
    found = steered.predict_reconstruction(fold)
    for id_, name in fold.asked:
        np.testing.assert_array_equal(found[id_, name], found[id_, fold.perspectives[0]])
    differs = nulls.zero_shot(fold)
    assert any(np.abs(found[key] - differs[key]).max() > 1e-3 for key in found)


@pytest.mark.parametrize("operator", merged.COMPARED_OPERATORS)
def test_merges_take_read_branches(fold, operator):
    config = MergeConfig(operator)
    everybody = merged.merge_perspectives(fold, config)
    own = merged.merge_with_base(fold, config)
    branches = steered.mean_differences(fold)["selected"]
    base = nulls.fit_biases(fold, fold.feedback, nulls.POOLED_RIDGE)
    for id_, name in fold.asked:
        scores = branches.scores[id_]
        features = nulls.option_features(scores[0], len(base) - 2)
        rows = [log_softmax(features @ base)]
        rows += [np.log(branches.probabilities(id_, p)) for p in fold.perspectives]
        for found, kept in (
            (everybody, rows),
            (own, [rows[0], np.log(branches.probabilities(id_, name))]),
        ):
            expected = merge_branches(torch.tensor(np.stack(kept)), config).exp()
            np.testing.assert_allclose(found[id_, name], expected, atol=1e-5)
    names = {id_: [everybody[i, n] for i, n in fold.asked if i == id_] for id_, _ in fold.asked}
    assert all(np.array_equal(rows[0], row) for rows in names.values() for row in rows)
