import json

import pytest

from saepd.common.errors import InputError
from saepd.tasks.draws import draw_feedback
from saepd.tasks.loading import load_task
from saepd.tasks.published.liar import CONTRADICTED, REPEATED


def liar_line(id_, label, statement, n_columns=14):
    return "\t".join([f"{id_}.json", label, statement, *["x"] * (n_columns - 3)])


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def test_verdicts_are_ordinal_and_their_false_side_is_misinformation(tmp_path):
    labels = ("true", "mostly-true", "half-true", "barely-true", "false", "pants-fire")
    lines = [liar_line(i, label, f'Soup "number" {i}') for i, label in enumerate(labels)]
    path = write(tmp_path / "liar_valid.tsv", *lines, "")
    task = load_task("liar", path)
    options = ("Pants on fire", "False", "Barely true", "Half true", "Mostly true", "True")
    assert all(item.options == options for item in task.items)
    assert [item.distributions["fact-checkers"].index(1) for item in task.items] == [
        5,
        4,
        3,
        2,
        1,
        0,
    ]
    first = task.items[0]
    assert (first.id, first.topic, first.prompt) == ("0", "valid", 'Soup "number" 0')
    assert task.ordinal[first.id] == (0, 1, 2, 3, 4, 5)
    assert task.positive == ""
    binary = load_task("liar-binary", path)
    golds = [item.distributions["fact-checkers"] for item in binary.items]
    assert golds == [(1, 0)] * 3 + [(0, 1)] * 3
    assert (binary.items[0].options, binary.positive) == (("No", "Yes"), "Yes")


def test_repeated_and_contradicted_statements_are_counted(tmp_path):
    write(
        tmp_path / "a_train.tsv",
        liar_line(1, "true", '"Soup'),
        liar_line(2, "false", "Tea"),
        liar_line(3, "pants-fire", "Tea"),
    )
    write(tmp_path / "a_valid.tsv", liar_line(4, "true", '"Soup ') + "\r")
    task = load_task("liar", tmp_path)
    assert [item.prompt for item in task.items] == ['"Soup']
    assert task.left_out == {REPEATED: 1, CONTRADICTED: 2}
    # Read as yes or no, the two verdicts on tea agree.
    binary = load_task("liar-binary", tmp_path)
    assert [item.id for item in binary.items] == ["1", "2"]
    assert binary.left_out == {REPEATED: 2}


def test_bad_statements_are_named(tmp_path):
    path = write(tmp_path / "f.tsv", "soup,true,x", liar_line(1, "True", "Tea"), "1.json\ttrue\t ")
    with pytest.raises(InputError) as caught:
        load_task("liar", path)
    lines = [line.split("f.tsv")[1] for line in str(caught.value).splitlines()]
    assert lines == [
        ": 3 bad rows",
        ", line 1, row: 1 column(s): write id, label and statement between tabs",
        ", line 2, label: 'True' is no label: use one of pants-fire, false, barely-true, "
        "half-true, mostly-true, true",
        ", line 3, row: empty: write some text",
    ]


def test_the_public_liar(shared_data):
    shared_data("liar_train.tsv")
    shared_data("liar_valid.tsv")
    task = load_task("liar", shared_data())
    assert len(task.items) == 5271
    assert task.left_out == {REPEATED: 7, CONTRADICTED: 6}
    assert len(task.items) + sum(task.left_out.values()) == 4000 + 1284
    assert len(load_task("liar-binary", shared_data()).items) == 5272


CLAIMS = """claim,label,annotator,comment,topic
Soup is dry.,Yes,Ann,"It is wet, always.",food
Soup is dry.,0,Bea,,food
Tea is hot.,not misinformation,Ann,,
"""


def claims(tmp_path, text, name="f.csv"):
    (tmp_path / name).write_text(text)
    return load_task("claims", tmp_path / name)


def test_claims_carry_each_annotators_answer_and_comment(tmp_path):
    task = claims(tmp_path, CLAIMS)
    soup, tea = task.items
    assert (soup.topic, tea.topic, soup.options) == ("food", "", ("No", "Yes"))
    assert soup.distributions == {"Ann": (0, 1), "Bea": (1, 0)}
    assert task.perspectives == ("Ann", "Bea")
    assert [(row.perspective, row.answer, row.comment) for row in task.feedback] == [
        ("Ann", "Yes", "It is wet, always."),
        ("Bea", "No", None),
        ("Ann", "No", None),
    ]
    [row] = draw_feedback(task, [soup.id], 1, "answer", 0, ["Ann"])
    assert row.comment == "It is wet, always."
    assert "auroc" in task.metrics


def test_unclear_is_an_option_where_somebody_used_it(tmp_path):
    rows = [{"claim": "Soup is dry.", "label": label, "annotator": str(label)} for label in (0, 1)]
    rows.append({"claim": "Tea is hot.", "label": "Unsure", "annotator": "0"})
    task = claims(tmp_path, "\n".join(map(json.dumps, rows)), "f.jsonl")
    assert task.items[0].distributions == {"0": (1, 0, 0), "1": (0, 1, 0)}
    assert task.items[1].distributions == {"0": (0, 0, 1)}
    assert task.items[1].options == ("No", "Yes", "Unclear")
    assert "auroc" not in task.metrics


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Milk.,true,Ann,,",
            "label: 'true' is no label: use one of no, 0, not misinformation, yes",
        ),
        ("Milk.,yes,,,", "annotator: missing"),
        ("Tea is hot.,yes,Ann,,", "annotator: 'Ann' labelled this claim before"),
        ("Milk.,,Ann,,", "line 5, label: missing"),
        ("Milk.,yes,Ann", "line 5, row: 3 columns where the header has 5"),
    ],
)
def test_bad_claims_are_named(tmp_path, line, message):
    with pytest.raises(InputError) as caught:
        claims(tmp_path, CLAIMS + line + "\n")
    assert message in str(caught.value)
    assert "line 5" in str(caught.value)


def test_claims_need_their_columns(tmp_path):
    with pytest.raises(InputError, match="no column label, annotator"):
        claims(tmp_path, "claim\nSoup.\n")
