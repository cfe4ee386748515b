import json

import pytest

from saepd.common.errors import InputError
from saepd.tasks.draws import draw_feedback
from saepd.tasks.loading import load_task
from saepd.tasks.own import own_task

ITEM = {"id": "soup", "prompt": "Is soup good?", "options": ["Better", "Worse", "The same"]}
GOLD = {"perspective": "North", "distribution": [0.5, 0.25, 0.25]}
SAID = {
    "id": "r1",
    "perspective": "South",
    "prompt": "Is soup good?",
    "options": ["Better", "Worse", "The same"],
    "answer": "Worse",
    "comment": "Too salty.",
}


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)))


def test_items_alone_and_a_folder_with_feedback(tmp_path):
    write(tmp_path / "items.jsonl", ITEM | GOLD, {"id": "why", "prompt": "Why?", "options": []})
    alone = load_task("own", tmp_path / "items.jsonl")
    assert [item.id for item in alone.items] == ["soup", "why"]
    assert (alone.perspectives, alone.feedback) == (("North",), ())
    assert alone.ordinal == {"soup": (0, 2, 1)}
    write(tmp_path / "feedback.jsonl", SAID, SAID | {"id": "r2", "item": "soup"})
    task = load_task("own", tmp_path)
    # A row without an item's id belongs to the item that asks the same.
    assert [row.item for row in task.feedback] == ["soup", "soup"]
    assert task.perspectives == ("North", "South")
    [row] = draw_feedback(task, ["soup"], 1, "answer", 0, ["South"])
    assert (row.answer, row.comment) == ("Worse", "Too salty.")
    assert [item.id for item in load_task("own", tmp_path, ["South"]).items] == ["soup"]


def test_csv_is_read_where_there_is_no_jsonl(tmp_path):
    (tmp_path / "items.csv").write_text("id,prompt,options\nsoup,Soup?,Yes|No\n")
    assert load_task("own", tmp_path).items[0].options == ("Yes", "No")
    write(tmp_path / "items.json", [])
    with pytest.raises(InputError, match=r"holds items\.csv and items\.json: keep one"):
        load_task("own", tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompt": "Is tea good?"}, "'r1' is about no item's prompt and options"),
        ({"item": "tea", "prompt": "T"}, "'r1' is about no item's prompt and options"),
        ({"item": "soup", "prompt": "Tea?"}, "'r1' has another prompt than its item 'soup'"),
        (
            {"item": "soup", "options": ["Worse", "Better", "The same"]},
            "'r1' has other options than its item 'soup'",
        ),
    ],
)
def test_feedback_on_no_item_is_refused(tmp_path, change, problem):
    write(tmp_path / "items.jsonl", ITEM | GOLD)
    write(tmp_path / "feedback.jsonl", SAID | change)
    with pytest.raises(InputError, match=rf"feedback.jsonl: feedback {problem}: write the id"):
        load_task("own", tmp_path)


def test_a_group_s_distribution_is_no_feedback_that_is_drawn(tmp_path):
    write(tmp_path / "items.jsonl", ITEM | GOLD)
    group = {k: v for k, v in SAID.items() if k not in ("answer", "comment")}
    write(tmp_path / "feedback.jsonl", SAID, group | {"id": "r2", "distribution": [0.2, 0.3, 0.5]})
    with pytest.raises(InputError, match=r"'r2' holds a distribution .* 1 row\(s\) do: give"):
        load_task("own", tmp_path)
    # A comment says something, whether there is an answer beside it or not.
    write(tmp_path / "feedback.jsonl", SAID, group | {"id": "r2", "comment": "Too hot."})
    assert len(load_task("own", tmp_path).feedback) == 2


def test_every_row_is_linked_or_named(tmp_path):
    write(tmp_path / "items.jsonl", ITEM | GOLD)
    rows = [SAID | {"id": f"r{i}", "item": "SOUP"} for i in range(3)]
    write(tmp_path / "feedback.jsonl", *rows)
    task = own_task(tmp_path / "items.jsonl", tmp_path / "feedback.jsonl")
    assert [(row.id, row.item) for row in task.feedback] == [(f"r{i}", "soup") for i in range(3)]
    strange = [SAID | {"id": f"s{i}", "prompt": "Tea?"} for i in range(7)]
    write(tmp_path / "feedback.jsonl", *rows, *strange)
    with pytest.raises(InputError, match=r"'s0' .*; 's4' is about .*; and 2 rows more"):
        load_task("own", tmp_path)
    write(tmp_path / "items.jsonl", ITEM | GOLD, ITEM | {"id": "again"})
    write(tmp_path / "feedback.jsonl", SAID)
    with pytest.raises(InputError, match="'r1' may be about 'soup' and 'again', which ask the"):
        load_task("own", tmp_path)


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(tmp_path):
    files = [tmp_path / "items.jsonl", tmp_path / "feedback.jsonl"]
    write(files[0], ITEM | GOLD, {"id": "half"})
    write(files[1], SAID, SAID | {"id": "r2", "answer": "Perhaps"}, {})
    with pytest.raises(InputError, match="line 2"):
        own_task(*files)
    task = own_task(*files, skip_bad=True)
    assert len(task.items) == len(task.feedback) == 1
    assert task.left_out == {f"bad rows of {files[0]}": 1, f"bad rows of {files[1]}": 2}


def test_bad_files_are_reported_as_ever(tmp_path):
    with pytest.raises(InputError, match=r"holds no items\.jsonl or items\.csv"):
        load_task("own", tmp_path)
    write(tmp_path / "items.jsonl", ITEM | GOLD | {"distribution": [1, 1, 1]})
    with pytest.raises(InputError, match="line 1, distribution: sums to 3"):
        load_task("own", tmp_path)
