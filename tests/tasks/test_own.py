import json

import pytest

from saepd.common.errors import InputError
from saepd.tasks import draw_feedback, load_task

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


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Is tea good?"},
        {"item": "soup", "prompt": "Tea?"},
        {"item": "tea", "prompt": "T"},
    ],
)
def test_feedback_on_no_item_is_refused(tmp_path, change):
    write(tmp_path / "items.jsonl", ITEM | GOLD)
    write(tmp_path / "feedback.jsonl", SAID | change)
    with pytest.raises(InputError, match=r"feedback.jsonl: feedback 'r1' is about no item"):
        load_task("own", tmp_path)


def test_bad_files_are_reported_as_ever(tmp_path):
    with pytest.raises(InputError, match=r"holds no items\.jsonl or items\.csv"):
        load_task("own", tmp_path)
    write(tmp_path / "items.jsonl", ITEM | GOLD | {"distribution": [1, 1, 1]})
    with pytest.raises(InputError, match="line 1, distribution: sums to 3"):
        load_task("own", tmp_path)
