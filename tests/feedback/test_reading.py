import csv
import json
import tracemalloc

import hypothesis.strategies as st
import pytest
from hypothesis import given

from saepd.common.errors import InputError
from saepd.feedback.fields import RESERVED
from saepd.feedback.reading import (
    feedback_hash,
    load_feedback,
    load_items,
    stream_feedback,
    write_feedback,
)
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.texts import visible

GOOD = {
    "id": "r1",
    "perspective": "North",
    "prompt": "Is soup a meal?",
    "options": ["Yes", "No"],
    "answer": "Yes",
}


def row(**changes):
    """A good row with changes; None takes a field away."""
    return {k: v for k, v in {**GOOD, **changes}.items() if v is not None}


def write_jsonl(path, rows):
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def report_of(path, load=load_feedback):
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value)


def test_five_kinds_of_bad_rows_are_one_report(tmp_path):
    path = write_jsonl(
        tmp_path / "answers.jsonl",
        [
            row(),
            row(id="r2", answer="Perhaps"),
            row(id="r3", prompt=None),
            row(id="r4"),
            row(id="r5", answer=None, distribution=[0.5, 0.1]),
            row(id="r6", options=["Yes"]),
            row(id="r4"),
        ],
    )
    lines = report_of(path).splitlines()
    assert lines[0] == f"{path}: 5 bad rows"
    expected = [
        (2, "answer", "'Perhaps' is not an option: write one of 'Yes', 'No'"),
        (3, "prompt", "missing"),
        (5, "distribution", "sums to 0.6: shares must sum to 1"),
        (6, "options", "only one option ('Yes'): give two or more"),
        (7, "id", "'r4' is used by an earlier row"),
    ]
    assert len(lines) == 1 + len(expected)
    for line, (number, field, message) in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"{path}, line {number}, {field}: {message}")


@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        (row(perspective=None), "perspective", "missing"),
        (row(options=None), "options", "missing"),
        (row(prompt="  "), "prompt", "empty"),
        (row(perspective=""), "perspective", "empty"),
        (row(answer=None), "answer", "missing: give an answer, or"),
        (row(id=7.5), "id", "7.5 is not text"),
        (row(options="Yes|No"), "options", "'Yes|No' is not a list"),
        (row(options=["Yes", "Yes "]), "options", "'Yes' is there twice"),
        (row(distribution=[1.2, -0.2]), "distribution", "shares must be finite"),
        (row(distribution=[float("nan"), 1.0]), "distribution", "shares must be finite"),
        (row(distribution=[1.0]), "distribution", "1 numbers for 2 options"),
        (row(distribution=["most", 0]), "distribution", "'most' is not a number"),
        (row(options=[], distribution=[]), "distribution", "there are no options"),
        (row(anwser="Yes"), "anwser", "no such field: rename it to one of id, prompt"),
        (row(answer="{0} \ud83c"), "answer", "half a surrogate pair"),
        (row(item="r", prompt="Is tea?"), "item", "'r' has another prompt"),
        (b'{"id": "caf\xe9"}', "row", "not UTF-8"),
        (b"id,perspective", "row", "not JSON"),
        (b"[" * 100_000, "row", "not JSON"),
        (b'["r1"]', "row", "['r1'] is not an object"),
    ],
)
def test_each_kind_of_bad_row_is_named_and_the_rest_read(tmp_path, bad, field, message):
    first, last = row(id="first", item="r"), row(id="last", item="r")
    path = write_jsonl(tmp_path / "f.jsonl", [first, b"", bad, last])
    header, problem = report_of(path).splitlines()
    assert header == f"{path}: 1 bad row"
    assert problem.startswith(f"{path}, line 3, {field}: {message}")

    loaded = load_feedback(path, skip_bad=True)
    assert [r.id for r in loaded.rows] == ["first", "last"]
    assert [str(p) for p in loaded.problems] == [problem]


def test_skipping_counts_every_bad_row_and_the_report_lists_fifty(tmp_path):
    rows = [row(id=f"r{i}", **({f"f{i // 2}": 1, "g": 1} if i else {})) for i in range(161)]
    path = write_jsonl(tmp_path / "f.jsonl", rows)
    loaded = load_feedback(path, skip_bad=True)
    assert (len(loaded.problems), loaded.n_bad, loaded.rows) == (320, 160, loaded)
    lines = report_of(path).splitlines()
    assert lines[0].endswith("160 bad rows")
    assert lines[-1] == "and 32 more"
    assert len(lines) == 52


def test_rows_with_the_same_problem_share_a_line(tmp_path):
    rows = [row(id=None) if i else row() for i in range(41)]
    rows += [row(id=f"r{i}", options=["Yes;No", f"{i}"], answer=f"no {i}") for i in range(9)]
    path = write_jsonl(tmp_path / "f.jsonl", rows)
    lines = report_of(path).splitlines()
    assert lines[:2] == [
        f"{path}: 49 bad rows",
        f"{path}, line 2 and 39 more, id: missing: every row needs it",
    ]
    assert [line.split(", ")[1] for line in lines[2:]] == [
        "line 42",
        "line 43",
        "line 44",
        "line 45",
        "line 46",
        "line 47 and 3 more",
    ]


def test_a_file_without_a_good_row_is_an_error_even_when_skipping(tmp_path):
    path = write_jsonl(tmp_path / "f.jsonl", [row(answer="Perhaps")])
    with pytest.raises(InputError, match="1 bad row"):
        load_feedback(path, skip_bad=True)


def test_streaming_yields_until_the_first_bad_row_then_reports_all(tmp_path):
    rows = [row(), row(id="r2", answer="?"), row(id="r3"), row(id="r4", answer="?")]
    stream = stream_feedback(write_jsonl(tmp_path / "f.jsonl", rows))
    assert next(stream).id == "r1"
    with pytest.raises(InputError, match="2 bad rows"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.jsonl", "", "holds no rows"),
        ("f.csv", "id,perspective,prompt,options,answer\n", "holds no rows"),
        ("f.csv", "id,perspective\n", "line 1: no column prompt, options"),
        ("f.csv", "id,perspective,prompt,options,anwser\n", "line 1: column 'anwser'"),
        ("f.csv", "id,id,perspective,prompt,options\n", "line 1: column 'id'"),
        ("f.txt", "", "unknown suffix '.txt'"),
        ("f.jsonl", None, "No such file"),
    ],
)
def test_files_that_cannot_be_read_at_all(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert message in report_of(tmp_path / name)


def test_csv(tmp_path):
    path = tmp_path / "f.CSV"
    path.write_bytes(
        b"\xef\xbb\xbfid,perspective,prompt,options,answer,distribution,comment\r\n"
        b'1,North,"Is soup,\r\nhot or cold, a meal?",Yes | No,Yes,,\r\n'
        b'2,North,Q,"[""a|b"", ""c""]",a|b,,"He said ""no"""\r\n'
        b"3,North,Q,Yes|No,Yes\r\n"
        b'4,North,Q,Yes|No,Yes,,"caf\xe9\r\n"\r\n'
        b"5,North,Q,Yes|No,,.2|.8,\r\n"
        b"6,North,Why?,,Because.,,\r\n"
        b",,,,,,\r\n"
        b"\r\n"
        b'7,North,Q,Yes|No,Yes,,"a"b"\r\n'
        b"8,North,Q,Yes|No,Yes,,x,y\r\n"
        b'9,North,Q,Yes|No,,"[0.25, 0.75]",\r\n'
        b"10,North,Q,Yes|No,Perhaps,,\r\n"
        b'11,North,Q,Yes|No,Yes,,"never closed\r\n'
    )
    rows = load_feedback(path, skip_bad=True)
    assert [r.id for r in rows] == ["1", "2", "5", "6", "9"]
    assert rows[0].prompt == "Is soup,\r\nhot or cold, a meal?"
    assert rows[0].options == ("Yes", "No")
    assert (rows[1].options, rows[1].answer) == (("a|b", "c"), "a|b")
    assert rows[1].comment == 'He said "no"'
    assert (rows[2].distribution, rows[2].answer) == ((0.2, 0.8), None)
    assert (rows[3].options, rows[3].answer) == ((), "Because.")
    assert rows[4].distribution == (0.25, 0.75)
    found = [(p.where, p.field, p.message.split(":")[0]) for p in rows.problems]
    assert found == [
        ("line 5", "row", "5 columns where the header has 7"),
        ("line 6", "row", "not UTF-8"),
        ("line 12", "row", "not CSV (',' expected after '\"')"),
        ("line 13", "row", "8 columns where the header has 7"),
        ("line 15", "answer", "'Perhaps' is not an option"),
        ("line 16", "row", "not CSV (unexpected end of data)"),
    ]


def test_rows_that_ask_the_same_belong_to_one_item(tmp_path):
    rows = [row(), row(id="r2", perspective="South"), row(id="r3", options=["No", "Yes"])]
    one, two, three = load_feedback(write_jsonl(tmp_path / "f.jsonl", rows)).rows
    assert one.item == two.item != three.item
    assert one.as_item() == Item(id=one.item, prompt=one.prompt, options=one.options)


def test_accepted_distributions_are_scaled_to_sum_to_one():
    feedback = Feedback.model_validate(row(answer=None, distribution=[0.6, 0.43]))
    assert feedback.distribution == pytest.approx((0.6 / 1.03, 0.43 / 1.03))
    assert sum(feedback.distribution) == pytest.approx(1, abs=1e-12)
    with pytest.raises(InputError, match="numbers for 2 options"):
        Item(id="i", prompt="Q", options=("a", "b"), distributions={"North": (1.0,)})


def test_item_rows_are_joined_by_id(tmp_path):
    question = {
        "id": "soup",
        "prompt": "Is soup a meal?",
        "options": ["Yes", "No"],
        "topic": "food",
    }
    rows = [
        {**question, "perspective": "North", "distribution": [0.2, 0.8], "count": 40},
        {"id": "tea", "prompt": "Tea?", "options": []},
        {**question, "perspective": "South", "distribution": [0.5, 0.5]},
    ]
    soup, tea = load_items(write_jsonl(tmp_path / "f.jsonl", rows)).rows
    assert soup.distributions == {"North": (0.2, 0.8), "South": (0.5, 0.5)}
    assert soup.counts == {"North": 40}
    assert soup.topic == "food"
    assert (tea.id, tea.options, tea.distributions) == ("tea", (), {})


def test_bad_item_rows(tmp_path):
    question = {"id": "soup", "prompt": "Is soup a meal?", "options": ["Yes", "No"]}
    gold = {"perspective": "North", "distribution": [0.2, 0.8]}
    rows = [
        {**question, **gold},
        {**question, **gold},
        {**question, "prompt": "Soup?", **gold, "perspective": "South"},
        {**question, "id": "a", "distribution": [0.2, 0.8]},
        {**question, "id": "b", "perspective": "North"},
        {**question, "id": "c", "count": 3},
        {**question, "id": "d", **gold, "count": 0},
    ]
    path = write_jsonl(tmp_path / "f.jsonl", rows)
    items = load_items(path, skip_bad=True)
    assert [item.id for item in items] == ["soup"]
    assert [(p.where, p.field) for p in items.problems] == [
        ("line 2", "id"),
        ("line 3", "prompt"),
        ("line 4", "distribution"),
        ("line 5", "distribution"),
        ("line 6", "count"),
        ("line 7", "count"),
    ]
    assert "6 bad rows" in report_of(path, load_items)


def people(n, perspective):
    rows = [row(id=f"{perspective}{i}", perspective=perspective) for i in range(n)]
    return [Feedback.model_validate(r) for r in rows]


def test_hash_ignores_order_and_nothing_else():
    rows = people(3, "North")
    assert feedback_hash(rows) == feedback_hash(rows[::-1])
    changed = [rows[0].model_copy(update={"answer": "No"}), *rows[1:]]
    assert len({feedback_hash(r) for r in (rows, rows[:2], changed)}) == 3


def test_writing_replaces_the_file_only_when_all_rows_are_there(tmp_path):
    path = tmp_path / "new" / "f.jsonl"
    write_feedback(path, people(2, "North"))

    def failing():
        yield from people(1, "South")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_feedback(path, failing())
    assert load_feedback(path).rows == people(2, "North")
    assert [p.name for p in path.parent.iterdir()] == ["f.jsonl"]
    with pytest.raises(InputError, match="JSONL"):
        write_feedback(tmp_path / "f.csv", [])


def test_streaming_holds_one_row_at_a_time(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for i in range(20_000):
            file.write(json.dumps(row(id=f"r{i}", comment=f"{i} " + "x" * 1500)) + "\n")
    tracemalloc.start()
    try:
        n = sum(1 for _ in stream_feedback(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 20_000
    # The 20,000 hashed ids take about 2 MB; the rows would take over 30.
    assert path.stat().st_size > 30e6
    assert peak < 5e6


characters = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r\v\f")
text = st.text(characters, max_size=12).filter(visible)


@st.composite
def feedback(draw):
    options = draw(
        st.one_of(st.just([]), st.lists(text, min_size=2, max_size=4, unique_by=visible))
    )
    fields = {
        "id": draw(text),
        "perspective": draw(text.filter(lambda name: name.strip() not in RESERVED)),
        "prompt": draw(text),
        "options": options,
        "answer": draw(st.sampled_from(options) if options else text),
        "comment": draw(st.none() | text),
    }
    if options and draw(st.booleans()):
        weights = draw(st.lists(st.integers(1, 9), min_size=len(options), max_size=len(options)))
        fields["distribution"] = [weight / sum(weights) for weight in weights]
        fields["answer"] = draw(st.sampled_from([None, fields["answer"]]))
    if draw(st.booleans()):
        fields["item"] = f"item of {fields['id']}"
    return Feedback(**fields)


@given(rows=st.lists(feedback(), min_size=1, max_size=5, unique_by=lambda r: r.id))
def test_rows_survive_jsonl_and_csv(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    write_feedback(folder / "f.jsonl", rows)
    assert load_feedback(folder / "f.jsonl").rows == rows
    assert feedback_hash(load_feedback(folder / "f.jsonl").rows) == feedback_hash(rows)

    with (folder / "f.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Feedback.model_fields))
        writer.writeheader()
        for r in rows:
            cells = r.model_dump(mode="json", exclude_none=True)
            lists = {k: json.dumps(v) for k, v in cells.items() if isinstance(v, list)}
            writer.writerow(cells | lists)
    assert load_feedback(folder / "f.csv").rows == rows
