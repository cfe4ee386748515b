from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tiny import SITE

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback
from saepd.fit.asked import ask
from saepd.fit.gauss_newton import around_nothing, linear_rows
from saepd.fit.penalised import Part, Ridge, fit_readouts, losses
from saepd.fit.validate import fitted_without, folds, foretold, really_foretold, some_answers
from saepd.models.wording import ReadoutConfig


@pytest.fixture(scope="module")
def asked(llama):
    rows = [
        Feedback(
            id=f"{i}",
            item=f"i{i}",
            perspective="ab"[i % 2],
            prompt=prompt,
            options=("yes", "no"),
            answer="yes" if i % 3 else "no",
        )
        for i, prompt in enumerate(["One?", "Two?", "one", "Three?", "Four?", "Five?"])
    ]
    return ask(llama, rows, [SITE], ReadoutConfig(), "answer", lambda *_: None)


def test_questions_in_the_same_words_stay_together(asked):
    parts = folds(asked, 3)
    assert sorted(q for part in parts for q in part) == sorted(asked.scores)
    [together] = [part for part in parts if "i0" in part]
    assert "i2" in together


def test_there_are_no_more_folds_than_questions_and_never_hardly_any(asked):
    assert len(folds(asked, 10)) == 5
    few = replace(asked, wordings=dict.fromkeys(asked.wordings, "one"))
    with pytest.raises(InputError, match="at least 5 questions, not on 1"):
        folds(few, 10)


@pytest.mark.parametrize("n_perspectives", [2, 3, 4])
def test_each_perspective_is_spread_over_the_folds_whoever_was_asked_what(llama, n_perspectives):
    rows = [
        Feedback(
            id=f"{i}",
            perspective=f"group {i % n_perspectives}",
            prompt=f"Is plan {i:02} good?",
            options=("yes", "no"),
            answer="yes",
        )
        for i in range(4 * n_perspectives)
    ]
    asked = ask(llama, rows, [SITE], ReadoutConfig(), "answer", lambda *_: None)
    for part in folds(asked, 2):
        answered = Counter(a.perspective for a in asked.answers if a.question in part)
        assert answered == dict.fromkeys(asked.perspectives, 2)


def test_no_answer_is_foretold_by_a_fit_that_has_seen_its_question(asked):
    parts = folds(asked, 5)
    rows = linear_rows(asked, around_nothing(asked, lambda *_: None))
    seen = []

    def fit(some):
        seen.append({row.question for row in some})
        return fit_readouts(some, Ridge())

    fits = fitted_without(rows, parts, fit)
    for part, questions in zip(parts, seen, strict=True):
        assert not part & questions
        assert part | questions == set(asked.scores)
    found = foretold(
        rows,
        parts,
        [
            {n: Part(p.readout, np.zeros(rows[0].effects.shape[1])) for n, p in own.items()}
            for own in fits
        ],
    )
    row, [fold] = rows[0], [i for i, part in enumerate(parts) if "i0" in part]
    by_hand = losses([row], {"a": Part(fits[fold]["a"].readout, np.zeros(row.effects.shape[1]))})
    assert found[0] == pytest.approx(by_hand[0])


def test_some_answers_are_spread_over_perspectives_and_folds(llama):
    rows = [
        Feedback(
            id=f"{name}{i}",
            item=f"i{i}",
            perspective=name,
            prompt=f"Is {i} so?",
            options=("yes", "no"),
            answer="yes",
        )
        for i in range(15)
        for name in ("a", "b")
        if name == "a" or i < 10
    ]
    asked = ask(llama, rows, [SITE], ReadoutConfig(), "answer", lambda *_: None)
    parts = folds(asked, 5)
    every = {(row.question, row.perspective) for row in asked.answers}
    assert some_answers(asked, parts, 1000) == every
    found = some_answers(asked, parts, 12)
    assert len(found) == 12 and found < every
    assert found == some_answers(asked, parts, 12)

    def groups(pairs):
        return Counter((n, next(i for i, own in enumerate(parts) if q in own)) for q, n in pairs)

    assert groups(found).keys() == groups(every).keys()
    assert max(groups(found).values()) <= 2


def test_a_perspective_without_other_answers_is_not_foretold(asked):
    parts = folds(asked, 5)
    rows = linear_rows(asked, around_nothing(asked, lambda *_: None))
    found = foretold(rows, parts, [{} for _ in parts])
    assert np.isnan(found).all()


def test_vectors_that_run_foretell_what_they_do(asked):
    parts, width = folds(asked, 5), int(asked.model.cfg.d_model)
    vector = np.random.default_rng(0).normal(size=width) / 4
    readout = Part(np.array([1.0, 0.1, -0.1, 0.0]), np.zeros(0))
    fits = [({"a": readout, "b": readout}, asked.pairs({"a": vector, "b": 0 * vector}))] * 5
    found = really_foretold(asked, parts, {"one": fits})["one"]
    [moved] = asked.moved(asked.pairs({"a": vector, "b": 0 * vector}))
    features = asked.readout_features()
    for loss, (question, name, target) in zip(found, asked.answers, strict=True):
        logits = features[question] @ readout.readout + moved[question, name]
        assert loss == pytest.approx(-target @ (logits - np.logaddexp.reduce(logits)), abs=1e-6)
    assert any(np.abs(moved[q, "a"]).max() > 0.01 for q, n, _ in asked.answers if n == "a")
