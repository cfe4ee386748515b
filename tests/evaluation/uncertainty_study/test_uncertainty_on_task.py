import json
import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from uncertainty_study.assessed import BASE, OPERATORS, RANDOM, TEMPERATURE, TEMPERED, assess_fold
from uncertainty_study.uncertainty_on_task import TRIAGE, measure

from saepd.evaluation.config import DrawConfig
from saepd.uncertainty.assessment import SCORES


@pytest.fixture(scope="module")
def assessed(opinion_fold):
    return assess_fold(opinion_fold)


@pytest.fixture(scope="module")
def measured(opinion_fold, opinions, assessed):
    return measure([(opinion_fold, assessed)], opinions, "", "total variation", 0)


def test_one_answer_for_all_by_every_merge(opinion_fold, assessed):
    assert [item.id for item in assessed.items] == list(opinion_fold.test)
    for name in (BASE, TEMPERATURE, *OPERATORS, f"pluralistic{RANDOM}"):
        for answers in (assessed.answers[name], assessed.answers.get(name + TEMPERED, [])):
            for p, item in zip(answers, assessed.items, strict=False):
                assert p.shape == (len(item.options),) and p.sum() == pytest.approx(1)
    for p, tempered, item in zip(
        assessed.answers[BASE], assessed.answers[TEMPERATURE], assessed.items, strict=True
    ):
        scores = opinion_fold.cache.text_scores[item.id]
        np.testing.assert_allclose(p, softmax(scores), atol=1e-5)
        np.testing.assert_allclose(tempered, softmax(scores / assessed.temperature), atol=1e-5)
    # Random latents are others.
    same = zip(assessed.answers["mixture"], assessed.answers[f"mixture{RANDOM}"], strict=True)
    assert any(np.abs(p - q).max() > 1e-6 for p, q in same)


def test_scores_are_read_as_the_answers_are(assessed):
    for one, p in zip(assessed.assessments, assessed.answers[TEMPERATURE], strict=True):
        np.testing.assert_allclose(one.branches[0], p, atol=1e-5)
        assert all(math.isfinite(one.scores[name]) for name in SCORES)


def test_labels_and_disagreement_are_of_all_people(opinions, assessed, measured):
    for item, label, wrong, p in zip(
        assessed.items, measured.labels, measured.wrong, assessed.answers[BASE], strict=True
    ):
        gold = np.mean(list(opinions.by_id[item.id].distributions.values()), axis=0)
        assert label == gold.argmax()
        assert wrong == (p.argmax() != label)
    assert len(measured.scores[TRIAGE]) == len(assessed.items)
    assert ((measured.scores[TRIAGE] >= 0) & (measured.scores[TRIAGE] <= 1)).all()


def test_the_person_asked_is_not_among_those_who_count(opinions, opinion_fold, assessed):
    found = measure([(opinion_fold, assessed)], opinions, "south", "total variation", 0)
    golds = [opinions.by_id[item.id].distributions for item in assessed.items]
    distance = [np.abs(np.subtract(g["south"], g["north"])).sum() / 2 for g in golds]
    np.testing.assert_allclose(found.asked, distance, atol=1e-9)
    model = [
        np.abs(np.subtract(p, g["north"])).sum() / 2
        for p, g in zip(assessed.answers[TEMPERATURE], golds, strict=True)
    ]
    np.testing.assert_allclose(found.unasked, model, atol=1e-9)


def test_a_summary_is_json_and_tells_every_method_score_and_order(measured):
    summary = json.loads(json.dumps(measured.summary, allow_nan=False))
    assert {row["method"] for row in summary["calibration"]} == set(measured.answers)
    assert {row["score"] for row in summary["scores"]} == set(measured.scores)
    assert {row["order"] for row in summary["triage"]} == set(measured.orders)
    [claim] = [r for r in summary["calibration"] if r["method"] == "pluralistic"]
    assert set(claim["minus"]) == {BASE, TEMPERATURE, "mixture", f"pluralistic{RANDOM}"}
    learning = summary["learning"]
    assert len(learning[TRIAGE]) == len(learning["random"])
    # In the end everybody was asked, in whatever order.
    if learning["batch"] == 1:
        assert learning[TRIAGE][-1] == pytest.approx(learning["random"][-1], abs=1e-3)


def test_one_perspective_with_labels(fold_on, labels):
    task = labels.only(["north"])
    fold = fold_on(task, DrawConfig(n_feedback=6, draws=1))
    assessed = assess_fold(fold)
    found = measure([(fold, assessed)], task, "", "error", 0)
    assert set(np.unique(found.unasked)) <= {0.0, 1.0}
    assert found.asked.tolist() == [0.0] * len(assessed.items)
    assert found.summary["person"] == "gold" and found.summary["share_divided"] == 0
    assert "perspective_disagreement" not in found.scores
    assert all(entropy(p) >= 0 for p in found.answers["pluralistic"])
