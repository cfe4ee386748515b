import pytest

from saepd.common.errors import InputError
from saepd.feedback.accepting import as_feedback, as_items
from saepd.feedback.reading import load_feedback, write_feedback
from saepd.feedback.schema import Feedback, Item

FIELDS = {"prompt": "Is soup a meal?", "options": ("Yes", "No"), "answer": "Yes"}
ROWS = [Feedback(id=f"r{i}", perspective="NS"[i % 2], **FIELDS) for i in range(4)]


def test_rows_files_and_what_a_file_gives(tmp_path):
    write_feedback(tmp_path / "f.jsonl", ROWS)
    loaded = load_feedback(tmp_path / "f.jsonl")
    assert loaded[0].prompt == "Is soup a meal?"
    assert loaded.problems == []
    dicts = [row.model_dump(exclude_none=True) for row in ROWS]
    mixed = [ROWS[0], *dicts[1:]]
    for given in (ROWS, tuple(ROWS), iter(ROWS), loaded, dicts, mixed):
        assert as_feedback(given) == ROWS
    for path in (tmp_path / "f.jsonl", str(tmp_path / "f.jsonl")):
        assert as_feedback(path) == ROWS


def test_a_frame():
    pandas = pytest.importorskip("pandas", reason="needs the extra explore")
    numpy = pytest.importorskip("numpy")
    frame = pandas.DataFrame([row.model_dump(exclude_none=True) for row in ROWS])
    assert as_feedback(frame) == ROWS
    frame["options"] = [numpy.array(["Yes", "No"]), "Yes|No", ["Yes", "No"], "['Yes', 'No']"]
    frame["comment"] = [None, float("nan"), pandas.NA, pandas.NaT]
    frame["item"] = pandas.Series([numpy.float64("nan")] * 4, dtype=object)
    frame["id"] = range(4)
    changed = as_feedback(frame)
    assert [row.options for row in changed] == [("Yes", "No")] * 4
    assert [row.comment for row in changed] == [None] * 4
    assert [row.id for row in changed] == ["0", "1", "2", "3"]
    frame.loc[2, "answer"] = "Perhaps"
    with pytest.raises(InputError, match="the frame, row 3, answer: 'Perhaps' is not an option"):
        as_feedback(frame)
    with pytest.raises(InputError, match="the frame: no column prompt"):
        as_feedback(frame.drop(columns="prompt"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "None is no feedback: give rows"),
        (7, "7 is no feedback"),
        (ROWS[0], "is no feedback: give rows"),
        ({"id": "r"}, "is no feedback: give rows"),
        ([], "there is no feedback"),
        ([ROWS[0], ROWS[0]], "two rows of feedback have the id 'r0'"),
        ([ROWS[0], 5], "row 2, row: 5 is no row of feedback"),
        ([{"id": "r"}], "the feedback, row 1, prompt: missing"),
        ("none.jsonl", "cannot read none.jsonl"),
    ],
)
def test_anything_else_is_one_sentence(given, message):
    with pytest.raises(InputError, match=message):
        as_feedback(given)


def test_items_are_one_or_several():
    item = Item(id="q", prompt="Is soup a meal?", options=())
    assert as_items(item) == [item] == as_items([item])
    for given in ("Is soup a meal?", ["Is soup a meal?"], None, [item, 7]):
        with pytest.raises(InputError, match=r"is no list of questions: give saepd\.Item"):
            as_items(given)
