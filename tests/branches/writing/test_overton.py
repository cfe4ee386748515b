from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import D_MODEL, SITE

from saepd.branches.writing import overton
from saepd.branches.writing.config import OvertonConfig, SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.branches.writing.overton import distinct_answers
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.metrics.same_answer import token_f1

DRAWN = SamplingConfig(max_new_tokens=6, temperature=2.0, seed=3)
PROMPT = "So what"


def dense(name, seed=0, size=4.0):
    vector = size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(name, SITE, AddVector(vector))


SAID = {
    "base": ["red soup", "red soup", "green", ""],
    "north": ["red soup", "soup red", "blue", "blue"],
    "south": ["blue", "blue sky", "Green!", "red hot soup"],
}


def test_shares_are_means_over_the_perspectives_by_hand():
    found = overton._answers(SAID, {"north": 0.75, "south": 0.25}, similarity=0.5)
    assert [answer.text for answer in found] == ["blue", "red soup", "green"]
    blue, red, green = found
    assert red.held_by == {"base": pytest.approx(2 / 3), "north": 0.5, "south": 0.25}
    assert red.share == pytest.approx(0.75 * 0.5 + 0.25 * 0.25)
    assert red.texts == {"red soup": 3, "soup red": 1, "red hot soup": 1}
    assert blue.held_by == {"base": 0.0, "north": 0.5, "south": 0.5}
    assert blue.texts == {"blue": 3, "blue sky": 1}
    assert green.share == pytest.approx(0.25 * 0.25)
    assert green.texts == {"green": 1, "Green!": 1}


def test_one_who_says_nothing_gives_no_answer():
    said = {"base": ["red"], "north": [""], "south": ["red"]}
    [red] = overton._answers(said, {"north": 0.75, "south": 0.25}, similarity=0.5)
    assert red.share == 1 and red.held_by == {"base": 1.0, "north": 0.0, "south": 1.0}
    assert overton._answers({"base": [""], "north": [""]}, {"north": 1.0}, similarity=0.5) == ()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(
            st.sampled_from(["", "red", "red soup", "blue", "blue soup"]), min_size=3, max_size=3
        ),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from([0.2, 0.5, 1.0]),
)
def test_answers_part_the_texts_and_are_unlike_each_other(drawn, similarity):
    names = ["base", *(f"p{i}" for i in range(1, len(drawn)))]
    texts = dict(zip(names, drawn, strict=True))
    shares = dict.fromkeys(names[1:], 1 / (len(names) - 1))
    found = overton._answers(texts, shares, similarity)
    counted = [text for answer in found for text, n in answer.texts.items() for _ in range(n)]
    assert sorted(counted) == sorted(text for own in drawn for text in own if text)
    for name, own in texts.items():
        total = sum(answer.held_by[name] for answer in found)
        assert total == pytest.approx(1.0 if any(own) else 0.0)
    if any(any(own) for own in drawn[1:]):
        assert sum(answer.share for answer in found) == pytest.approx(1)
    assert [a.share for a in found] == sorted((a.share for a in found), reverse=True)
    for answer in found:
        others = [text for text in answer.texts if text != answer.text]
        assert answer.text in answer.texts
        assert all(token_f1(answer.text, text) > 0 for text in others)


def test_the_texts_are_those_that_branches_write_with_each_seed(llama):
    directions = [dense("north", 1), dense("south", 2)]
    config = OvertonConfig(n_samples=3, similarity=1.0, shares=(0.9, 0.1))
    found = distinct_answers(llama, [PROMPT, "Why"], directions, DRAWN, config)
    assert [one.prompt for one in found] == [PROMPT, "Why"]
    for prompt, one in zip((PROMPT, "Why"), found, strict=True):
        written = [
            generate_branches(llama, [prompt], directions, replace(DRAWN, seed=seed))[0]
            for seed in (3, 4, 5)
        ]
        texts = [" ".join(text.text.split()) for row in written for text in row]
        assert sorted(t for a in one.answers for t, n in a.texts.items() for _ in range(n)) == (
            sorted(text for text in texts if text)
        )
        assert one.n_empty == texts.count("")


def test_directions_that_change_nothing_hold_what_the_base_holds(llama):
    still = [dense("north", size=0.0), dense("south", size=0.0)]
    [found] = distinct_answers(llama, [PROMPT], still, DRAWN)
    for answer in found.answers:
        assert len(set(answer.held_by.values())) == 1
        assert answer.share == pytest.approx(answer.held_by["base"])


def test_texts_are_drawn_unless_told_otherwise(llama):
    config = OvertonConfig(n_samples=3)
    usual = distinct_answers(llama, [PROMPT], [dense("north")], config=config)
    drawn = SamplingConfig(temperature=0.9)
    assert usual == distinct_answers(llama, [PROMPT], dense("north"), drawn, config)
    one = OvertonConfig(n_samples=1)
    [greedy] = distinct_answers(llama, [PROMPT], dense("north"), SamplingConfig(), one)
    np.testing.assert_allclose(sum(a.share for a in greedy.answers), 1)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"n_samples": 0}, "n_samples is 0: it must be a whole number at least 1"),
        ({"similarity": 0.0}, "the similarity is 0.0"),
        ({"shares": (0.5, 0.2)}, r"shares are \(0.5, 0.2\): their sum must be 1"),
        ({"shares": (-1.0, 2.0)}, "a number of shares is -1.0"),
    ],
)
def test_settings_that_are_none_are_refused(setting, match):
    with pytest.raises(InputError, match=match):
        OvertonConfig(**setting)


def test_what_cannot_be_laid_out_is_refused(llama):
    with pytest.raises(InputError, match="no directions: give at least one"):
        distinct_answers(llama, [PROMPT], [])
    with pytest.raises(InputError, match="several branches are called 'north'"):
        distinct_answers(llama, [PROMPT], [dense("north"), dense("north", 1)])
    with pytest.raises(InputError, match="give a list of at least one prompt"):
        distinct_answers(llama, PROMPT, [dense("north")])
    with pytest.raises(InputError, match="at temperature 0 all 4 samples"):
        distinct_answers(llama, [PROMPT], [dense("north")], SamplingConfig())
    with pytest.raises(InputError, match="2 shares for 1 perspectives"):
        distinct_answers(llama, [PROMPT], dense("north"), config=OvertonConfig(shares=(0.5, 0.5)))
