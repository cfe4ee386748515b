from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import make_draws
from saepd.feedback.schema import Feedback
from saepd.feedback.splits import question_key

ASKED = DrawConfig(n_feedback=6, draws=3)


@given(n=st.integers(1, 12), seed=st.integers(0, 50), limit=st.one_of(st.none(), st.integers(1, 4)))
@settings(max_examples=30)
def test_no_question_is_on_both_sides_and_everybody_keeps_enough(opinions, n, seed, limit):
    config = DrawConfig(n_feedback=n, draws=2, seed=seed, limit=limit)
    for draw in make_draws(opinions, config):
        keys = [
            {question_key(opinions.by_id[i].prompt) for i in ids} for ids in (draw.train, draw.test)
        ]
        assert not keys[0] & keys[1]
        assert {row.item for row in draw.feedback} <= set(draw.train)
        assert len(draw.feedback) == 2 * n
        assert 1 <= len(draw.test) <= (limit or len(opinions.items))
    assert (
        make_draws(opinions, config)[1] == make_draws(opinions, replace(config, seed=seed + 1))[0]
    )


def test_a_limit_takes_some_of_the_same_questions(opinions):
    [whole], [part] = (
        make_draws(opinions, replace(ASKED, draws=1, limit=limit)) for limit in (None, 2)
    )
    assert whole.train == part.train
    assert whole.feedback == part.feedback
    assert len(part.test) == 2 < len(whole.test)
    assert set(part.test) < set(whole.test)


def test_a_fold_does_not_know_what_people_said_about_its_test_items(opinion_fold, opinions):
    assert all(not opinion_fold.task.by_id[i].distributions for i in opinion_fold.test)
    assert all(
        opinion_fold.task.by_id[i].distributions == opinions.by_id[i].distributions
        for i in opinion_fold.train
    )
    assert set(opinion_fold.asked) == {
        (i, p) for i in opinion_fold.test for p in opinions.perspectives
    }


def said(item, person):
    return Feedback(
        id=f"{item.id}-{person}",
        perspective="north",
        item=item.id,
        prompt=item.prompt,
        options=item.options,
        answer=item.options[0],
    )


def test_rows_that_people_wrote_decide_what_can_be_held_out(opinions):
    asked = opinions.items[:7]
    task = replace(opinions, feedback=tuple(said(item, n) for item in asked for n in range(2)))
    # One question less leaves twelve rows of six questions.
    for draw in make_draws(task, replace(ASKED, n_feedback=11)):
        assert len({i.id for i in asked} & set(draw.test)) <= 1
        mine = [row for row in draw.feedback if row.perspective == "north"]
        assert len({row.id for row in mine}) == 11
        assert {row.item for row in mine} <= set(draw.train)
    with pytest.raises(InputError, match=r"'north' of the task soups has 14 answer\(s\), .* 15"):
        make_draws(task, replace(ASKED, n_feedback=15))


def test_equal_prompts_under_other_ids_never_stand_on_both_sides(opinions):
    twins = [
        item.model_copy(update={"id": f"{item.id} again", "prompt": f"  {item.prompt.upper()}"})
        for item in opinions.items
    ]
    task = replace(opinions, items=(*opinions.items, *twins))
    for draw in make_draws(task, replace(ASKED, n_feedback=6, draws=8)):
        assert len(draw.test) > 1
        for id_ in draw.test:
            twin = id_.removesuffix(" again") if id_.endswith(" again") else f"{id_} again"
            assert twin not in draw.train
            assert twin not in {row.item for row in draw.feedback}


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"n_feedback": 15}, "has 14 answer.*too few for n_feedback 15"),
        ({"n_feedback": 14}, "keeps 14 for training, leaves one side empty"),
        ({"n_feedback": 0}, "n_feedback is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"test_share": 1.0}, "test_share is 1.0"),
        ({"test_share": 7}, "test_share is 7"),
        ({"seed": -1}, "seed is -1"),
        ({"n_feedback": 2.5}, "n_feedback is 2.5: it must be a whole number"),
        ({"draws": "two"}, "draws is 'two'"),
        ({"limit": float("nan")}, "limit is nan"),
        ({"test_share": "half"}, "test_share is 'half'"),
        ({"seed": None}, "seed is None"),
        ({"feedback_kind": "essay"}, "unknown kind of feedback 'essay'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(opinions, setting, match):
    with pytest.raises(InputError, match=match):
        make_draws(opinions, replace(ASKED, **setting))
