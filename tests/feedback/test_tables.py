"""What spreadsheets, data frames and the hub make of a table: read as meant, or refused by name."""

import json
import logging

import pytest

from saepd.common.errors import InputError
from saepd.feedback.reading import load_feedback, load_items
from saepd.feedback.tables import table_rows

HEADER = "id,perspective,prompt,options,answer\n"
TEXT = HEADER + "1,North,Is café a meal?,Yes|No,Yes\n2,South,Is café a meal?,Yes|No,No\n"


def refused(path):
    with pytest.raises(InputError) as caught:
        load_feedback(path)
    return str(caught.value)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "f.csv"
    path.write_text(TEXT, encoding="utf-8")
    return load_feedback(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("f.csv", TEXT.encode("utf-8-sig"), ""),
        ("f.csv", TEXT.encode("utf-16"), "UTF-16"),
        ("f.csv", TEXT.replace("\n", "\r\n").encode(), ""),
        ("f.csv", TEXT.replace("\n", "\r").encode(), ""),
        ("f.csv", TEXT.replace(",", ";").encode(), "semicolons"),
        ("f.csv", b"sep=;\r\n" + TEXT.replace(",", ";").encode(), "semicolons"),
        ("f.csv", TEXT.replace(",", "\t").encode(), "tabs"),
        ("f.tsv", TEXT.replace(",", "\t").encode(), ""),
        ("f.tsv", TEXT.encode(), "commas"),
        ("f.csv", TEXT.replace("\n", ",,\n").encode(), ""),
        ("f.csv", TEXT.replace("Yes|No", "\"['Yes', 'No']\"").encode(), ""),
        ("f.csv", TEXT.replace("é", "e\u0301").encode(), ""),
        ("f.csv", TEXT.replace("prompt", "\u200bprompt\u00a0", 1).encode(), ""),
    ],
)
def test_a_table_is_the_same_in_every_form_of_text(tmp_path, caplog, plain, name, content, said):
    (tmp_path / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, "saepd"):
        assert load_feedback(tmp_path / name) == plain
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("latin-1"), "line 2, row: not UTF-8: byte 0xe9 after '1,North,Is caf'"),
        (TEXT.encode("utf-16")[2:], "looks like UTF-16 without the mark"),
        (b"\xff\xfea", "begins as UTF-16 but is not"),
        (TEXT.encode("utf-32"), "is UTF-32: save the file as UTF-8"),
        (b"PK\3\4\0\0", "is a zip archive, as workbooks of Excel are"),
        (b"\x1f\x8b\x08\0", "is compressed with gzip: unpack it first"),
        (TEXT.replace("id,", "ID,", 1).encode(), "no column id: the header needs id, prompt, "),
        (TEXT.replace("id,", "ID,", 1).encode(), "and is 'ID, perspective, prompt, options"),
        (TEXT.replace("|No,", "|\u200b,").encode(), "options: holds only characters that cannot"),
        (
            TEXT.replace("a meal", "a\0meal").encode(),
            "line 2 and 1 more, prompt: holds the",
        ),
        (TEXT.replace("North", "N" * 200_000).encode(), "line 2, row: a cell is longer than"),
        (TEXT.replace("Yes|No,Yes", "Yes;No,Yes").encode(), "two or more, separated by | in a"),
        (TEXT.replace("|No,Yes", "|No,yes").encode(), "write it as the option is written, 'Yes'"),
        (TEXT.replace("|No,Yes", "|No,b)").encode(), "write that option's text, 'No'"),
        (TEXT.replace("1,North", "1,base").encode(), "'base' is what saepd calls the model"),
        ((HEADER[:-1] + ",\n1,North,Q,Yes|No,Yes,x\n").encode(), "'x' is in a column without a"),
    ],
)
def test_what_cannot_be_read_for_certain_is_named(tmp_path, content, message):
    (tmp_path / "f.csv").write_bytes(content)
    assert message in refused(tmp_path / "f.csv")


def test_the_delimiter_found_is_named_where_columns_are_missing(tmp_path):
    (tmp_path / "f.csv").write_text("id;perspective;options\n1;North;Yes|No\n")
    assert "line 1 (cells between semicolons): no column prompt: the header needs id" in refused(
        tmp_path / "f.csv"
    )


ROW = {"id": "1", "perspective": "North", "prompt": "Q?", "options": ["Yes", "Don't know"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": True}, "answer: True is not text"),
        ({"answer": float("nan")}, "answer: nan stands for no value"),
        ({"answer": None}, "answer: missing"),
        ({"distribution": [True, False]}, "distribution: True is not a number"),
        ({"distribution": [60, 40]}, "sums to 100: shares must sum to 1 (within 0.05); divide"),
        ({"distribution": [1e308, 1e308]}, "distribution: sums to inf"),
        (
            {"distribution": ["0,25", "0,75"]},
            "'0,25' is not a number: write one, 0.25",
        ),
        ({"distribution": ["2,5 %", "97%"]}, "'2,5 %' is not a number: write one, 0.025"),
        ({"distribution": [0, 25, 0, 75]}, "4 numbers for 2 options: give one for each, with"),
        ({"distribution": [10**400, 0]}, "distribution"),
        ({"options": ["a b", "a\u00a0b"], "answer": "a b"}, "'a b' is there twice, to the eye"),
        ({"id": "\u200b", "answer": "Yes"}, "id: holds only characters that cannot be seen"),
        ({"perspective": "all", "answer": "Yes"}, "perspective: 'all' is what saepd calls"),
    ],
)
def test_values_that_are_no_answer(tmp_path, change, message):
    (tmp_path / "f.jsonl").write_text(json.dumps(ROW | change))
    assert message in refused(tmp_path / "f.jsonl")


def test_what_looks_the_same_is_the_same(tmp_path):
    same = [
        ROW | {"answer": "Don't\u00a0know"},
        ROW | {"id": 2, "perspective": "Nor\u200bth", "answer": "Don't know"},
        ROW | {"id": "3", "options": ["Yes", "Don't\u00a0know"], "answer": "Don't know"},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, same)))
    rows = load_feedback(tmp_path / "f.jsonl")
    assert {row.perspective for row in rows} == {"North"}
    assert len({row.item for row in rows}) == 1
    assert all(row.answer == row.options[1] for row in rows)
    assert [row.id for row in rows] == ["1", "2", "3"]


def test_a_question_with_other_options_is_said_to_be_another_item(tmp_path, caplog):
    rows = [ROW | {"answer": "Yes"}, ROW | {"id": "2", "options": ["Yes", "No"], "answer": "Yes"}]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, two = load_feedback(tmp_path / "f.jsonl")
    assert one.item != two.item
    assert "1 row(s) ask a question of an earlier row with other options" in caplog.text
    assert "the first is line 2, 'Q?'" in caplog.text


@pytest.fixture(scope="module")
def pandas():
    return pytest.importorskip("pandas", reason="needs the extra explore")


def test_parquet_and_its_columns_of_lists_texts_and_numbers(tmp_path, pandas):
    pytest.importorskip("pyarrow", reason="needs the extra explore")
    frame = pandas.DataFrame(
        {
            "id": [1, 2],
            "perspective": ["North", "South"],
            "prompt": ["Q?", "Q?"],
            "options": [["Yes", "No"], ["Yes", "No"]],
            "distribution": [[0.25, 0.75], None],
            "answer": [None, "No"],
        }
    )
    frame.to_parquet(tmp_path / "f.parquet")
    lists = load_feedback(tmp_path / "f.parquet")
    frame["options"] = ["Yes|No", '["Yes", "No"]']
    frame["distribution"] = ["[0.25, 0.75]", None]
    frame.to_parquet(tmp_path / "g.parquet")
    assert load_feedback(tmp_path / "g.parquet") == lists
    assert [row.id for row in lists] == ["1", "2"]
    assert lists[0].distribution == (0.25, 0.75)
    assert lists[1].answer == "No"
    (tmp_path / "h.parquet").write_bytes((tmp_path / "f.parquet").read_bytes()[:-9])
    assert "is no parquet that can be read" in refused(tmp_path / "h.parquet")
    frame.drop(columns="prompt").to_parquet(tmp_path / "i.parquet")
    assert "no column prompt" in refused(tmp_path / "i.parquet")


def test_the_hub_viewers_answer_is_a_table(tmp_path):
    entries = [{"row_idx": 0, "row": ROW | {"topic": "x"}, "truncated_cells": []}]
    for entry in entries:
        del entry["row"]["perspective"]
    (tmp_path / "f.json").write_text(json.dumps({"features": [], "rows": entries}))
    [item] = load_items(tmp_path / "f.json")
    assert (item.topic, item.options) == ("x", ("Yes", "Don't know"))


def test_names_of_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv", tmp_path / "nul\0.csv"):
        with pytest.raises(InputError):
            list(table_rows(path))
