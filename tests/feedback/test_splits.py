import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.feedback.splits import question_key, split_questions


def item(id_, prompt, topic="", options=("Yes", "No"), perspectives=()):
    gold = dict.fromkeys(perspectives, (0.5, 0.5))
    return Item(id=id_, prompt=prompt, options=options, topic=topic, distributions=gold)


def numbered(n, topic=""):
    return [item(f"{topic}{i}", f"Is {i} {topic} a lot?", topic) for i in range(n)]


@st.composite
def item_lists(draw):
    """Items of which several may ask the same, in other spellings or with other options."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 5),
                st.sampled_from(["Is tea {}?", " is TEA  {}", "Is soup {}?"]),
                st.sampled_from(["", "food", "drink"]),
            ),
            min_size=2,
            max_size=12,
        )
    )
    return [item(f"i{i}", text.format(n), topic) for i, (n, text, topic) in enumerate(rows)]


def keys(items, ids):
    return {question_key(i.prompt) for i in items if i.id in set(ids)}


@given(items=item_lists(), share=st.floats(0.05, 0.95), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None)
def test_no_question_and_no_group_is_on_both_sides(items, share, seed, data):
    some = data.draw(st.dictionaries(st.sampled_from([i.id for i in items]), st.sampled_from("gh")))
    try:
        train, test = split_questions(items, share, seed, some)
    except InputError:
        return
    assert [i.id for i in items if i.id in set(train)] == train
    assert sorted(train + test) == sorted(i.id for i in items)
    assert train
    assert test
    assert not keys(items, train) & keys(items, test)
    assert not {some[i] for i in train if i in some} & {some[i] for i in test if i in some}
    again = split_questions(items[::-1], share, seed, some)
    assert [set(ids) for ids in again] == [set(train), set(test)]


@given(items=item_lists(), keep=st.integers(0, 6), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None)
def test_every_perspective_keeps_answers_to_train_on(items, keep, seed, data):
    ids = [i.id for i in items]
    some = data.draw(st.dictionaries(st.sampled_from(ids), st.sampled_from("gh")))
    answered = data.draw(
        st.dictionaries(
            st.sampled_from(ids), st.dictionaries(st.sampled_from("pqr"), st.integers(1, 3))
        )
    )
    try:
        train, test = split_questions(items, 0.3, seed, some, keep=keep, answered=answered)
    except InputError:
        return
    assert not keys(items, train) & keys(items, test)
    assert not {some[i] for i in train if i in some} & {some[i] for i in test if i in some}
    for name in {p for i in test for p in answered.get(i, ())}:
        assert sum(answered[i].get(name, 0) for i in train if i in answered) >= keep
    again = split_questions(items[::-1], 0.3, seed, some, keep=keep, answered=answered)
    assert [set(part) for part in again] == [set(train), set(test)]
    free = split_questions(items, 0.3, seed, some, keep=0, answered=answered)
    assert free == split_questions(items, 0.3, seed, some)


def test_as_many_questions_go_as_leave_each_perspective_what_it_keeps():
    items = [item(f"i{i}", f"Is {i} a lot?", perspectives=("few", "many")) for i in range(10)]
    train, test = split_questions(items, 0.5, 0, keep=8)
    assert (len(train), len(test)) == (8, 2)


def test_a_question_that_has_to_stay_is_replaced_by_another():
    rare = [item(f"r{i}", f"Is {i} rare?", perspectives=("few", "many")) for i in range(10)]
    common = [item(f"c{i}", f"Is {i} common?", perspectives=("many",)) for i in range(30)]
    train, test = split_questions([*rare, *common], 0.3, 0, keep=10)
    assert len(test) == 12
    assert {i.id for i in rare} <= set(train)
    with pytest.raises(InputError, match="where each perspective keeps 10 for training"):
        split_questions(rare, 0.3, 0, keep=10)


@pytest.mark.parametrize("seed", range(5))
def test_the_test_side_has_its_share_of_all_and_of_each_topic(seed):
    items = numbered(40, "a") + numbered(20, "b") + numbered(7, "c")
    _, test = split_questions(items, 0.3, seed)
    assert len(test) == 20
    sizes = [sum(id_.startswith(topic) for id_ in test) for topic in "abc"]
    assert sizes == [pytest.approx(n * 0.3, abs=1) for n in (40, 20, 7)]


def test_splits_are_seeded_even_where_each_question_has_a_topic_of_its_own():
    items = [item(f"i{i}", f"Is {i} a lot?", topic=f"t{i}") for i in range(20)]
    for some in (items, numbered(20)):
        assert split_questions(some, 0.5, 0) == split_questions(some, 0.5, 0)
        assert len({tuple(split_questions(some, 0.5, seed)[1]) for seed in range(5)}) == 5


def test_spelling_makes_no_other_question_and_an_item_may_link_a_group_to_a_prompt():
    assert question_key(' Is  "soup" a meal? ') == question_key("is soup a meal")
    assert question_key("Is soup a meal?") != question_key("Is tea a meal?")
    assert question_key("?!") == "?!" != question_key("??")
    items = [item("a", "Soup?"), item("b", "soup"), item("c", "Tea?"), item("d", "Milk?")]
    train, test = split_questions(items, 0.5, 0, {"b": "g", "c": "g"})
    assert {"a", "b", "c"} in (set(train), set(test))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), 0.1, 0.9])
def test_shares_that_leave_a_side_empty(share):
    with pytest.raises(InputError, match=r"test_share is|leaves one side empty"):
        split_questions(numbered(3), share, 0)
