import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item
from saepd.uncertainty.assessment import SCORES, Assessment
from saepd.uncertainty.triage import (
    REASONS,
    UNREADABLE,
    needs,
    question_dict,
    reason_ranks,
    triage_dict,
    triage_items,
)

NAN = float("nan")
ITEM = Item(id="q", prompt="Should buses be free?", options=("Yes", "No"))


def assessed(item="q", *, warning="", branches=((0.6, 0.4), (0.75, 0.25), (0.25, 0.75)), **scores):
    values = dict.fromkeys(SCORES, 0.0) | scores
    flip = {"left": math.inf, "right": 0.5} if values["ease_of_flip"] else {}
    shares = np.array(branches)
    names = ("base", "left", "right")
    return Assessment(item, ("Yes", "No"), names, shares, np.ones(3), values, flip, warning)


def unreadable(item="gone"):
    scores = dict.fromkeys(SCORES, NAN)
    return assessed(item, warning="nothing was said", branches=[[NAN, NAN]] * 3, **scores)


def test_each_reason_puts_its_item_in_front():
    rows = [assessed("plain")]
    rows.append(assessed("unsure", entropy=0.6, epistemic=0.2))
    rows.append(assessed("divided", perspective_disagreement=0.3))
    rows.append(assessed("swayed", ease_of_flip=2.0, sway=0.4))
    ranked = triage_items(rows)
    assert [one.rank for one in ranked] == [1, 2, 3, 4]
    assert ranked[-1].assessment.item == "plain"
    reasons = {one.assessment.item: one.reasons for one in ranked}
    assert reasons["unsure"] == ("model unsure",)
    assert reasons["divided"] == ("perspectives differ",)
    assert reasons["swayed"] == ("easily swayed",)


def test_reasons_are_told_in_words_and_numbers():
    rows = [
        assessed(
            "all",
            entropy=0.673,
            epistemic=0.25,
            perspective_disagreement=0.1234,
            ease_of_flip=2.0,
            sway=0.4,
        ),
        assessed("none"),
    ]
    first = triage_items(rows)[0]
    assert set(first.reasons) == set(REASONS)
    assert "best answer 'Yes' at 0.60, entropy 0.67 of 0.69 nats" in first.why
    assert "0.250 nats of its answer follow one that is named" in first.why
    assert "0.1234 nats; 'Yes': left 0.75, right 0.25" in first.why
    assert "right flips the answer at 0.50 of the KL budget's coefficient" in first.why
    assert "warning" not in first.why


def test_perspectives_are_told_at_the_answer_on_which_they_are_furthest_apart():
    three = np.array([[0.5, 0.2, 0.3], [0.6, 0.3, 0.1], [0.55, 0.05, 0.4]])
    one = replace(
        assessed(perspective_disagreement=0.1), answers=("Yes", "No", "Unsure"), branches=three
    )
    first = triage_items([one, assessed("other")])[0]
    assert "'Unsure': right 0.40, left 0.10" in first.why


def test_what_cannot_be_read_comes_first_and_says_so():
    ranked = triage_items([assessed("a", entropy=0.6), unreadable(), assessed("b")])
    assert ranked[0].assessment.item == "gone"
    assert ranked[0].need == 1
    assert ranked[0].reasons == (UNREADABLE,)
    assert "nothing was said" in ranked[0].why


def test_an_item_alone_still_has_a_reason():
    [one] = triage_items([assessed(entropy=0.1)])
    assert one.need == 0.5 and len(one.reasons) == 1


def test_need_by_hand():
    rows = [
        assessed(entropy=e, perspective_disagreement=d).scores for e, d in ((0, 2), (1, 1), (2, 0))
    ]
    ranks = reason_ranks(rows)
    # Epistemic ties in the middle of three: .5 each; entropy is 0, .5 and 1.
    np.testing.assert_allclose(ranks["model unsure"], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(ranks["perspectives differ"], [1, 0.5, 0])
    np.testing.assert_allclose(ranks["easily swayed"], [0.5] * 3)
    np.testing.assert_allclose(needs(ranks), [1.75 / 3, 0.5, 1.25 / 3])


def test_reasons_that_are_unknown_do_not_count():
    rows = [
        assessed(entropy=0.1, perspective_disagreement=NAN, ease_of_flip=NAN, sway=NAN).scores,
        assessed(entropy=0.2, perspective_disagreement=NAN, ease_of_flip=NAN, sway=NAN).scores,
    ]
    ranks = reason_ranks(rows)
    assert np.isnan(ranks["perspectives differ"]).all()
    np.testing.assert_allclose(needs(ranks), ranks["model unsure"])


values = st.floats(0, 3) | st.just(NAN)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(values, values, values, values), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_needs_are_bounded_and_blind_to_order_and_units(rows, random):
    names = ("entropy", "epistemic", "perspective_disagreement", "ease_of_flip")
    scores = [dict.fromkeys(SCORES, NAN) | dict(zip(names, row, strict=True)) for row in rows]
    need = needs(reason_ranks(scores))
    assert ((need >= 0) & (need <= 1)).all()
    order = random.sample(range(len(rows)), len(rows))
    np.testing.assert_allclose(needs(reason_ranks([scores[i] for i in order])), need[order])
    doubled = [{name: 2 * value for name, value in one.items()} for one in scores]
    np.testing.assert_allclose(needs(reason_ranks(doubled)), need)


def test_the_budget_is_how_many_are_listed():
    rows = [assessed(str(i), entropy=i / 10) for i in range(5)]
    assert [one.assessment.item for one in triage_items(rows, 2)] == ["4", "3"]
    assert len(triage_items(rows, 50)) == 5
    with pytest.raises(InputError, match="budget is 0"):
        triage_items(rows, 0)
    with pytest.raises(InputError, match="no items to triage"):
        triage_items([])


def test_what_is_written_is_json():
    for one in triage_items([assessed(ease_of_flip=2.0), unreadable("q")]):
        found = json.loads(json.dumps(triage_dict(one, ITEM), allow_nan=False))
        assert found["why"] == one.why and found["rank"] == one.rank
    assert found["flip"] == {"left": None, "right": 0.5}
    assert found["branches"]["right"] == [0.25, 0.75]


def test_a_question_becomes_feedback_once_it_is_answered():
    row = question_dict(ITEM, "left")
    with pytest.raises(ValueError, match="missing: give an answer"):
        Feedback.model_validate({k: v for k, v in row.items() if v is not None})
    feedback = Feedback.model_validate(row | {"answer": "Yes"})
    assert (feedback.perspective, feedback.item, feedback.options) == ("left", "q", ITEM.options)
    assert question_dict(ITEM, "")["perspective"] is None
