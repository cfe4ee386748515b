import json

import pytest

from saepd.common.errors import InputError
from saepd.tasks.draws import draw_feedback
from saepd.tasks.loading import load_task
from saepd.tasks.published.opinions import REPEATED_OPTIONS

ROW = {
    "context": "The last biscuit is yours, and a friend would like it.",
    "action1": "I eat it.",
    "action2": "I share it.",
    "perspective": "North",
}


def load(tmp_path, *changes):
    rows = [{k: v for k, v in (ROW | change).items() if v is not None} for change in changes]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_task("moralchoice", tmp_path / "f.jsonl")


def test_shares_are_golds(tmp_path):
    (tmp_path / "f.csv").write_text(
        "scenario_id,context,action1,action2,ambiguity,perspective,share,answer\n"
        "H_1,Tea is cold.,Heat it.,Drink it.,high,North,.25,\n"
        "H_1,Tea is cold.,Heat it.,Drink it.,high,South,1,\n"
    )
    task = load_task("moralchoice", tmp_path / "f.csv")
    [item] = task.items
    assert (item.prompt, item.options) == ("Tea is cold.", ("Heat it.", "Drink it."))
    assert item.topic == "high"
    assert item.distributions == {"North": (0.25, 0.75), "South": (1, 0)}
    assert (item.counts, task.feedback) == ({}, ())


def test_answers_are_feedback_and_their_tally_is_the_gold(tmp_path):
    task = load(
        tmp_path,
        {"answer": "action1"},
        {"answer": "I share it."},
        {"answer": "action2"},
        {"answer": "action2", "perspective": "South", "context": None, "scenario": ROW["context"]},
        {"share": 0.5, "perspective": "West"},
    )
    [item] = task.items
    assert item.distributions["North"] == pytest.approx((1 / 3, 2 / 3))
    assert item.distributions["West"] == (0.5, 0.5)
    assert item.counts == {"North": 3, "South": 1}
    assert len({row.id for row in task.feedback}) == len(task.feedback) == 4
    [row] = draw_feedback(task, [item.id], 1, "answer", 0, ["South"])
    assert row in task.feedback
    assert task.wording.text(item.prompt).startswith(ROW["context"])


def test_a_choice_between_the_same_is_counted(tmp_path):
    task = load(tmp_path, {"share": 0.5}, {"share": 0.5, "action2": "I eat it. "})
    assert task.left_out == {REPEATED_OPTIONS: 1}
    assert len(task.items) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "answer: give either an answer or a share"),
        ({"share": 0.5, "answer": "action1"}, "answer: give either an answer or a share"),
        ({"answer": "I drop it."}, "answer: 'I drop it.' is neither action"),
        ({"share": 1.5}, "share: 1.5 is no share"),
        ({"share": "half"}, "share: 'half' is no share"),
        ({"share": [0.5]}, "share: [0.5] is no share"),
        ({"share": 0.5, "context": None}, "context: missing"),
        ({"share": 0.5, "perspective": "East"}, "share: given before for this question"),
        ({"answer": "action1", "perspective": "East"}, "'East' has both a share and answers"),
        ({"share": 0.5, "action2": None}, "no column action2"),
    ],
)
def test_bad_choices_are_named(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        load(tmp_path, {"share": 0.5, "perspective": "East"}, change)
    assert message in str(caught.value)
