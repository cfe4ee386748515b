import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from uncertainty_study.usefulness import usefulness_rows

from saepd.common.errors import InputError
from saepd.metrics.selective import aurc, coverage_at_risk

N = 80
QUESTIONS = [str(i) for i in range(N)]


def columns(seed=0):
    rng = np.random.default_rng(seed)
    wrong = rng.random(N) < 0.3
    return (
        {
            "good": wrong + rng.normal(0, 0.6, N),
            "blind": rng.normal(0, 1, N),
            "constant": np.zeros(N),
        },
        wrong,
        rng.random(N),
    )


def test_every_number_is_that_of_its_module():
    scores, wrong, divided = columns()
    rows = usefulness_rows(scores, wrong, {"divided": divided}, QUESTIONS, 0)
    for row in rows:
        own = scores[row["score"]]
        assert row["auroc_error"][0] == pytest.approx(roc_auc_score(wrong, own), abs=1e-4)
        high = divided > np.median(divided)
        assert row["auroc_divided"][0] == pytest.approx(roc_auc_score(high, own), abs=1e-4)
        assert row["aurc"][0] == pytest.approx(aurc(own, wrong.astype(float)), abs=1e-4)
        assert row["coverage_at_5%"][0] == pytest.approx(
            coverage_at_risk(own, wrong.astype(float), risk=0.05), abs=1e-4
        )
        assert (row["n"], row["n_unscored"]) == (N, 0)
    good, blind, constant = rows
    assert good["auroc_error"][1] > 0.5 and good["aurc_minus_random"][2] < 0
    assert blind["auroc_error"][1] < 0.5 < blind["auroc_error"][2]
    assert constant["auroc_error"] == [0.5, 0.5, 0.5]
    assert constant["aurc_minus_random"] == [0, 0, 0]


def test_ignorance_and_plurality_are_told_apart():
    rng = np.random.default_rng(1)
    divided = rng.random(N)
    wrong = rng.random(N) < 0.4
    [row] = usefulness_rows({"score": divided}, wrong, {"divided": divided}, QUESTIONS, 0)
    assert row["auroc_divided"][0] == 1
    assert row["auroc_error"][1] < 0.5 < row["auroc_error"][2]


def test_what_is_undefined_is_none_and_unscored_questions_are_counted():
    scores, wrong, _ = columns()
    partly = np.where(np.arange(N) < 5, np.nan, scores["good"])
    nobody = np.full(N, np.nan)
    first, second = usefulness_rows(
        {"partly": partly, "nobody": nobody}, wrong, {"divided": np.zeros(N)}, QUESTIONS, 0
    )
    assert (first["n"], first["n_unscored"]) == (N - 5, 5)
    assert first["auroc_divided"] is None and first["auroc_error"] is not None
    assert second == {"score": "nobody", "n": 0, "n_unscored": N}
    with pytest.raises(InputError, match="divided"):
        usefulness_rows({"a": scores["good"]}, wrong, {"divided": nobody}, QUESTIONS, 0)
