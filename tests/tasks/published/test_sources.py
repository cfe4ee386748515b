import pytest

from saepd.common.errors import InputError
from saepd.tasks.published.sources import (
    BadField,
    literal_in,
    parsed,
    read_table,
    split_files,
    split_name,
    text_in,
)


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("f.csv", '\ufeffa,b\n\n"x, ""y""\nz",2\n', "line 3"),
        ("f.jsonl", '\n{"a": "x, \\"y\\"\\nz", "b": "2"}\n', "line 2"),
        ("f.json", '[{"a": "x, \\"y\\"\\nz", "b": "2"}]', "entry 1"),
    ],
)
def test_three_kinds_of_table(tmp_path, name, text, where):
    assert read_table(write(tmp_path, name, text), ["a"]) == [(where, {"a": 'x, "y"\nz', "b": "2"})]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.csv", "b\n1\n", "line 1: no column a: the header needs a"),
        ("f.csv", "a,b\n1,2\n\n1\n", "line 4, row: 1 columns where the header has 2"),
        ("f.csv", 'a\n"never closed\n', "line 2, row: not CSV"),
        ("f.jsonl", '{"a": 1}\n{"a":\n', "line 2, row: not JSON"),
        ("f.jsonl", "[1]\n", "line 1, row: [1] is not an object"),
        ("f.jsonl", '{"a": 1, "a": 2}\n', "line 1, row: the key 'a' is there twice"),
        ("f.csv", "a,a\n1,2\n", "line 1: column 'a' is unknown or there twice"),
        ("f.json", '{"rows": [{"row": {"a": 1}, "truncated_cells": ["a"]}]}', "cut a cell short"),
        ("f.json", "{}", "is not a list"),
        ("f.json", "[" * 100_000, "not JSON"),
        ("f.txt", "", "unknown suffix '.txt'"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        parsed(path, read_table(path, ["a"]), lambda row: row)
    assert message in str(caught.value)


def test_all_bad_rows_are_one_report(tmp_path):
    rows = [(f"line {i}", {"a": "" if i % 2 else "x"}) for i in range(120)]
    with pytest.raises(InputError) as caught:
        parsed(tmp_path / "f.csv", rows, lambda row: text_in(row, "a"))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("f.csv: 60 bad rows")
    assert lines[1].endswith("f.csv, line 1 and 59 more, a: missing: every row needs it")
    assert len(lines) == 2
    assert parsed(tmp_path, rows[::2], lambda row: text_in(row, "a")) == ["x"] * 60
    with pytest.raises(InputError, match="holds no rows"):
        parsed(tmp_path / "f.csv", [], lambda row: row)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "missing"),
        (7.5, "7.5 is not text"),
        (True, "True is not text"),
        ("a\0b", r"control character .\\x00"),
        ("  ", "empty"),
        ("\ud83c", "half a surrogate"),
    ],
)
def test_text_that_is_none(value, message):
    with pytest.raises(BadField, match=message):
        text_in({"a": value}, "a")


def test_literals_are_read_and_never_evaluated():
    assert literal_in({"a": "defaultdict(<class 'list'>, {'X': [1, .5]})"}, "a", dict) == {
        "X": [1, 0.5]
    }
    assert literal_in({"a": ["x"]}, "a", list) == ["x"]
    assert literal_in({"a": " ['x', 'y']"}, "a", list) == ["x", "y"]
    for bad in (
        "[1",
        "__import__('os')",
        "{'X': print()}",
        "nan",
        "{1: 2}",
        "['a' 'b']",
        "[" * 9999,
        None,
    ):
        with pytest.raises(BadField, match="is not a list"):
            literal_in({"a": bad}, "a", list)


def test_splits_of_a_folder_are_the_files_named_after_one(tmp_path):
    for name in ("b_train.json", "a_DEV.json", "other.json", "train.tsv"):
        write(tmp_path, name, "")
    files = split_files(tmp_path, ".json")
    assert [(file.name, split_name(file)) for file in files] == [
        ("a_DEV.json", "dev"),
        ("b_train.json", "train"),
    ]
    assert split_files(tmp_path / "other.json", ".json") == [tmp_path / "other.json"]
    assert split_name(tmp_path / "other.json") == "other"
    with pytest.raises(InputError, match="named after a split"):
        split_files(tmp_path, ".csv")
