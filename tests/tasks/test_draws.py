from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item
from saepd.tasks.draws import draw_feedback, rows_to_draw
from saepd.tasks.task import SURVEY_WORDING, Task

OPTIONS = ("Yes", "No", "Unsure")


def items(n, *perspectives, gold=(0.5, 0.5, 0.0)):
    golds = dict.fromkeys(perspectives, gold)
    return [
        Item(id=f"i{i}", prompt=f"Is {i} a lot?", options=OPTIONS, distributions=golds)
        for i in range(n)
    ]


def said(item, perspective, person, **changes):
    row = {"answer": "Yes", "comment": f"{person} says so"} | changes
    return Feedback(
        id=f"{item.id}-{person}",
        item=item.id,
        perspective=perspective,
        prompt=item.prompt,
        options=item.options,
        **row,
    )


def task(items, feedback=()):
    return Task("lots", tuple(items), SURVEY_WORDING, (), feedback=tuple(feedback))


SEEDS = st.integers(0, 2**40)


@given(seed=SEEDS, n=st.integers(1, 8), kind=st.sampled_from(["answer", "distribution"]))
def test_draws_are_different_questions_seeded_nested_and_independent(seed, n, kind):
    both = items(12, "North", "South")
    allowed = [item.id for item in both[:9]]
    drawn = draw_feedback(task(both), allowed, n, kind, seed)
    assert [row.perspective for row in drawn] == ["North"] * n + ["South"] * n
    for rows in (drawn[:n], drawn[n:]):
        assert len({row.item for row in rows}) == n
        assert {row.item for row in rows} <= set(allowed)
    turned = task(both[::-1])
    assert draw_feedback(turned, allowed[::-1], n, kind, seed, ["North", "South"]) == drawn
    alone = task(items(12, "South"))
    assert draw_feedback(alone, set(allowed), n, kind, seed) == drawn[n:]
    larger = draw_feedback(alone, allowed, 9, kind, seed)
    assert larger[:n] == drawn[n:]
    # With three more questions to choose from, the order of the others stays.
    more = draw_feedback(alone, [i.id for i in both], 12, kind, seed)
    assert [row for row in more if row.item in allowed] == larger


def test_both_kinds_draw_the_same_questions_and_answers_follow_the_gold():
    some = task(items(2000, "North", gold=(0.2, 0.8, 0.0)))
    answers = draw_feedback(some, some.by_id, 1000, "answer", 0)
    golds = draw_feedback(some, some.by_id, 1000, "distribution", 0)
    assert [row.item for row in answers] == [row.item for row in golds]
    assert [row.id for row in answers] == [row.id for row in golds]
    assert {(row.answer, row.distribution) for row in golds} == {(None, (0.2, 0.8, 0.0))}
    share = Counter(row.answer for row in answers)
    assert share["Unsure"] == 0
    # Four standard errors of a share of .2 among 1000 are .05.
    assert share["Yes"] / 1000 == pytest.approx(0.2, abs=0.05)
    others = draw_feedback(some, some.by_id, 1000, "answer", 1)
    assert [row.item for row in others] != [row.item for row in answers]
    same = {row.item: row.answer for row in answers}
    assert len({row.answer == same[row.item] for row in others if row.item in same}) == 2


def test_peoples_own_rows_are_drawn_one_a_question_where_there_are_any():
    asked = items(5, "North", "South")
    rows = [said(item, "North", person) for item in asked for person in ("Ann", "Bea", "Cleo")]
    some = task(asked, rows)
    drawn = draw_feedback(some, ["i0", "i1", "i2", "i3"], 4, "answer", 0, ["North", "South"])
    assert all(row in rows for row in drawn[:4])
    assert len({row.item for row in drawn[:4]}) == 4
    assert all(row.perspective == "South" and row.comment is None for row in drawn[4:])
    people = {
        row.comment
        for seed in range(20)
        for row in draw_feedback(some, some.by_id, 5, "answer", seed, ["North"])
    }
    assert len(people) == 3
    [gold] = draw_feedback(some, ["i3"], 1, "distribution", 0, ["North"])
    assert (gold.answer, gold.distribution) == (None, (0.5, 0.5, 0.0))


def test_a_row_that_is_a_distribution_is_nobodys_answer():
    asked = items(3, "North")
    half = said(asked[0], "North", "all", answer=None, comment=None, distribution=(1, 0, 0))
    drawn = draw_feedback(task(asked, [half]), ["i0", "i1", "i2"], 3, "answer", 0)
    assert all(row.answer for row in drawn)
    assert half not in drawn


def test_items_with_the_same_prompt_are_one_question():
    twins = items(2, "North")
    twins.append(twins[0].model_copy(update={"id": "again", "prompt": "IS 0 a lot"}))
    drawn = draw_feedback(task(twins), ["i0", "i1", "again"], 2, "answer", 0)
    assert len({row.prompt.lower().strip("?") for row in drawn}) == 2
    # Only where every question has had its turn does one get a second row.
    more = draw_feedback(task(twins), ["i0", "i1", "again"], 3, "answer", 0)
    assert more[:2] == drawn
    assert {row.item for row in more} == {"i0", "i1", "again"}
    with pytest.raises(InputError, match="there are 3 answers of its to the questions given"):
        draw_feedback(task(twins), ["i0", "i1", "again"], 4, "answer", 0)


def test_a_question_gets_a_second_row_of_somebody_else_once_all_have_one():
    asked = items(4, "North")
    rows = [said(item, "North", person) for item in asked for person in ("Ann", "Bea", "Cleo")]
    some = task(asked, rows)
    drawn = draw_feedback(some, some.by_id, 10, "answer", 0)
    assert len({row.id for row in drawn}) == 10
    assert drawn[:6] == draw_feedback(some, some.by_id, 6, "answer", 0)
    for turn in (drawn[:4], drawn[4:8]):
        assert {row.item for row in turn} == {"i0", "i1", "i2", "i3"}
    total = sum(rows_to_draw(some, "answer").values(), Counter())
    assert total == {"North": 12}
    with pytest.raises(InputError, match="cannot draw 13 rows of perspective 'North'"):
        draw_feedback(some, some.by_id, 13, "answer", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 3}, "cannot draw 3 rows of perspective 'North': there are 2 distributions"),
        ({"kind": "votes"}, "unknown kind of feedback 'votes'"),
        ({"item_ids": ["i0", "x"]}, "has no item 'x'"),
        ({"perspectives": ["nort"]}, "no perspective 'nort': did you mean 'North'"),
    ],
)
def test_draws_that_cannot_be(changes, message):
    arguments = {"item_ids": ["i0", "i1"], "n": 1, "kind": "distribution", "seed": 0} | changes
    with pytest.raises(InputError, match=message):
        draw_feedback(task(items(3, "North")), **arguments)


def test_a_draw_ignores_what_else_is_in_the_task():
    some = task(items(6, "North"))
    other = replace(some, metrics=("js_distance",), left_out={"odd": 1})
    assert draw_feedback(some, some.by_id, 3, "answer", 0) == draw_feedback(
        other, some.by_id, 3, "answer", 0
    )
