import json
from collections import Counter

import pytest

from saepd.common.errors import InputError
from saepd.feedback.splits import split_questions
from saepd.tasks.draws import draw_feedback
from saepd.tasks.loading import load_task


def entry(text="Soup is wet.", annotations="0,1,0,1", **changes):
    info = {
        "annotators group": "group1,group1,group1,group2",
        "group1": "target group",
        "group2": "control group",
    }
    row = {
        "text": text,
        "annotations": annotations,
        "annotators": "Ann1,Ann2, Ann3,Ann4",
        "split": "train",
        "other_info": info,
    }
    return row | changes


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_groups_and_annotators_are_perspectives(tmp_path):
    path = write(tmp_path / "f.json", {"1": entry(), "2": entry("Tea is too.", "0,0,0,0")})
    task = load_task("hs-brexit", path)
    assert task.perspectives == ("control group", "target group")
    first = task.items[0]
    assert (first.id, first.topic, first.options) == ("train-1", "train", ("No", "Yes"))
    assert first.distributions == {
        "target group": pytest.approx((2 / 3, 1 / 3)),
        "control group": (0, 1),
    }
    assert first.counts == {"target group": 3, "control group": 1}
    said = {(row.id, row.perspective, row.answer) for row in task.feedback if row.item == "train-1"}
    assert said == {
        ("train-1-Ann1", "target group", "No"),
        ("train-1-Ann2", "target group", "Yes"),
        ("train-1-Ann3", "target group", "No"),
        ("train-1-Ann4", "control group", "Yes"),
    }
    assert task.positive == "Yes"
    named = load_task("hs-brexit-annotators", path, ["Ann4", "Ann2"])
    assert named.perspectives == ("Ann2", "Ann4")
    assert named.items[0].distributions == {"Ann2": (0, 1), "Ann4": (0, 1)}
    assert {row.perspective for row in named.feedback} == {"Ann2", "Ann4"}


def test_splits_of_a_folder_are_joined_with_names_of_their_own(tmp_path):
    write(tmp_path / "b_train.json", {"1": entry()})
    write(tmp_path / "a_dev.json", {"1": {k: v for k, v in entry("Tea?").items() if k != "split"}})
    write(tmp_path / "other.json", [])
    task = load_task("hs-brexit", tmp_path)
    assert [(item.id, item.topic) for item in task.items] == [
        ("dev-1", "dev"),
        ("train-1", "train"),
    ]
    write(tmp_path / "c_train.json", {"1": entry()})
    with pytest.raises(InputError, match="two items with the id 'train-1'"):
        load_task("hs-brexit", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, "text: missing"),
        ({"annotations": "0,1"}, "annotations: 2 for 4 annotators"),
        ({"annotations": "0,1,2,0"}, "annotations: '2' is no label"),
        ({"annotations": "0,,1,0"}, "annotations: one is empty"),
        ({"annotators": "Ann1,Ann1,Ann2,Ann3"}, "annotators: one is there twice"),
        ({"other_info": "x"}, "other_info: 'x' is not an object"),
        ({"other_info": {"annotators group": "group1"}}, "annotators group: 1 for 4 annotators"),
        ({"other_info": {}}, "does not say which group Ann1 is in: load hs-brexit-annotators"),
    ],
)
def test_bad_entries_are_named(tmp_path, changes, message):
    path = write(tmp_path / "f.json", {"0": entry(), "7": entry(**changes)})
    with pytest.raises(InputError) as caught:
        load_task("hs-brexit", path)
    assert message in str(caught.value)
    assert "text" in str(caught.value)
    assert "7" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not an object"),
        ('{"1": 2}', "not an object"),
        ("{", "not JSON"),
        ("{}", "no rows"),
    ],
)
def test_files_in_another_form(tmp_path, content, message):
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_task("hs-brexit", tmp_path / "f.json")


def test_annotators_are_enough_where_there_are_no_groups(tmp_path):
    path = write(tmp_path / "f.json", {"1": entry(other_info=None)})
    assert len(load_task("hs-brexit-annotators", path).perspectives) == 4


HEADER = "case_id,functionality,test_case,label_gold,ref_templ_id,templ_id\n"


def hatecheck(tmp_path, lines, header=HEADER):
    (tmp_path / "f.csv").write_text(header + "\n".join(lines) + "\n")
    return load_task("hatecheck", tmp_path / "f.csv")


def test_cases_of_one_template_are_one_group(tmp_path):
    lines = [
        "1,praise_nh,Soup is fine.,non-hateful,,10",
        "2,praise_nh,Tea is fine.,non-hateful,,10",
        "3,spelling_h,T e a is fine.,hateful,10,20",
        "4,spelling_h,T e 4 is fine.,hateful,20,30",
        "5,other_h,Milk.,hateful,50,50",
        "6,other_h,No milk.,hateful,,",
    ]
    task = hatecheck(tmp_path, lines)
    assert task.perspectives == ("gold",)
    assert [item.distributions["gold"] for item in task.items[1:3]] == [(1, 0), (0, 1)]
    assert task.items[2].topic == "spelling_h"
    assert task.groups == {"1": "10", "2": "10", "3": "10", "4": "10", "5": "50"}
    train, test = split_questions(task.items, 0.5, 0, task.groups)
    assert {"1", "2", "3", "4"} <= set(train) or {"1", "2", "3", "4"} <= set(test)
    question = 'Post: "Milk."\nIs this post hate speech'
    assert task.wording.text("Milk.") == f"{question}? Answer:"
    assert task.wording.persona_text("Milk.", "gold") == f"{question} according to experts? Answer:"


def test_bad_cases_are_named(tmp_path):
    with pytest.raises(InputError) as caught:
        hatecheck(tmp_path, ["1,f,Soup.,hateful,,", "2,f,Tea.,Hateful,,", "3,f,,hateful,,"])
    lines = str(caught.value).splitlines()
    assert [line.split("f.csv")[1] for line in lines] == [
        ": 2 bad rows",
        ", line 3, label_gold: 'Hateful' is no label: use hateful or non-hateful",
        ", line 4, test_case: missing: every row needs it",
    ]
    with pytest.raises(InputError, match="no column test_case"):
        hatecheck(tmp_path, ["1,f,x,hateful"], "case_id,functionality,text,label_gold\n")


def test_a_file_without_templates_has_no_groups(tmp_path):
    task = hatecheck(tmp_path, ["1,f,x,hateful"], "case_id,functionality,test_case,label_gold\n")
    assert task.groups == {}


def test_the_public_hs_brexit(shared_data):
    train = load_task("hs-brexit", shared_data("hs_brexit_train.json"))
    shared_data("hs_brexit_dev.json")
    both = load_task("hs-brexit", shared_data())
    assert (len(train.items), len(both.items), len(both.feedback)) == (784, 952, 5712)
    assert Counter(item.topic for item in both.items) == {"train": 784, "dev": 168}
    assert both.perspectives == ("control group", "target group")
    assert all(set(item.counts.values()) == {3} for item in both.items)
    yes = {
        group: sum(item.distributions[group][1] for item in both.items) / len(both.items)
        for group in both.perspectives
    }
    # The two groups differ, the control group calling tweets hate speech more often.
    assert yes["control group"] > 3 * yes["target group"]
    assert len(load_task("hs-brexit-annotators", shared_data()).perspectives) == 6
    drawn = draw_feedback(both, [item.id for item in train.items], 50, "answer", 0)
    assert all(row.item.startswith("train-") for row in drawn)


def test_the_public_hatecheck(shared_data):
    task = load_task("hatecheck", shared_data("hatecheck.csv"))
    assert len(task.items) == len(task.groups) == 1791
    assert len({item.topic for item in task.items}) == 29
    assert sum(item.distributions["gold"][1] for item in task.items) == 1212
    train, test = split_questions(task.items, 0.3, 0, task.groups)
    assert not {task.groups[i] for i in train} & {task.groups[i] for i in test}
