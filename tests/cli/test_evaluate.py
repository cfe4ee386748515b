import json

import pytest
from command_line import OPTIONS, feedback_row, refused, write_rows

EVALUATED = {"n-feedback": 3, "draws": 2, "few-shot-tokens": 80}


def evaluated_with(*arguments):
    """These arguments, and the sizes above that they do not give."""
    sizes = [f"--{name}={n}" for name, n in EVALUATED.items() if f"--{name}" not in arguments]
    return [*sizes, *arguments]


METHODS = ("uniform", "zero-shot", "train-mean-pooled", "few-shot")


@pytest.fixture
def evaluated(run, where, items, tmp_path):
    """Evaluate on rows of feedback, or on these arguments."""

    def evaluated(rows, *arguments):
        feedback = write_rows(tmp_path / "feedback.jsonl", rows)
        asked = ("evaluate", "--items", items, "--feedback", feedback, "--out", tmp_path / "out")
        return run(*asked, *evaluated_with(*arguments), *where)

    return evaluated


FOUR = [feedback_row(i, p) for p in ("left", "right") for i in range(8)]


def test_evaluate_compares_and_writes(evaluated, run, files, where, items, tmp_path):
    out = tmp_path / "out"
    done = evaluated(FOUR, "--methods", *METHODS, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((out / "summary.json").read_text())
    methods = {row["method"] for row in found["rows"]}
    assert methods == set(METHODS)
    assert found["config"]["perspectives"] == ["left", "right"]
    assert {row["perspective"] for row in found["rows"]} == {"all", "left", "right"}
    table = (out / "table.md").read_text()
    assert table.endswith("|\n")
    titles = ("uniform", "zero-shot", "train-mean, pooled", "few-shot prompt")
    assert all(f"| {title} |" in table for title in titles)
    # Again, it only reads what is there; in words, it says where that is.
    again = evaluated(FOUR, "--methods", *METHODS)
    assert again.code == 0, again.err
    assert "own, questions held out" in again.out
    assert f"results in {out}" in again.out.replace("\n", "")
    assert json.loads((out / "run.json").read_text())["seconds"] == {}
    # The same files as a task of their own are the same task.
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "items.jsonl").write_text((tmp_path / "items.jsonl").read_text())
    (folder / "feedback.jsonl").write_text((tmp_path / "feedback.jsonl").read_text())
    asked = ("evaluate", "--task", "own", "--data", folder, "--out", out, *evaluated_with())
    done = run(*asked, "--methods", *METHODS, "--json", *where)
    assert done.code == 0, done.err
    assert json.loads(done.out) == found


def test_evaluate_holds_one_answer_for_all_against_the_populations(evaluated, tmp_path):
    asked = ("--methods", "zero-shot", "merged-mixture")
    done = evaluated(FOUR, *asked)
    assert done.code == 0, done.err
    assert "One answer for the whole population" in done.out
    assert "| merged, mixture |" in (tmp_path / "out" / "population.md").read_text()
    assert "merged, mixture" not in (tmp_path / "out" / "table.md").read_text()


def test_evaluate_takes_perspectives_by_number_or_name(evaluated):
    done = evaluated(FOUR, "--methods", "uniform", "--json", "--perspectives", "right")
    assert json.loads(done.out)["config"]["perspectives"] == ["right"]
    done = evaluated(FOUR, "--methods", "uniform", "--perspectives", 1)
    refused(done, "holds an evaluation with perspectives ['right'], not ['left']")


def test_evaluate_needs_items_and_feedback_that_belong_together(evaluated, tmp_path):
    turned = [row | {"options": OPTIONS[::-1]} for row in FOUR]
    refused(evaluated(turned), "'left0' has other options than its item 'q0'")
    strange = [
        row | {"item": "q9", "prompt": "Q9?"} if row["id"] == "left3" else row for row in FOUR
    ]
    refused(evaluated(strange), "'left3' is about no item's prompt and options")
    third = feedback_row(0, "third")
    refused(evaluated([*FOUR, third]), "the task own has a distribution of 'third'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "unifrom"), "unknown method 'unifrom': did you mean 'uniform'?"),
        (("--methods",), "no methods: name at least one of uniform"),
        (("--methods", "linear-probe-latents"), "needs a positive class, which the task own"),
        (("--n-feedback", 9), "has 8 answer(s), which is too few for n_feedback 9"),
        (("--draws", 0), "draws is 0: it must be a whole number at least 1"),
        (("--test-share", 7), "test_share is 7.0: it must be between 0 and 1"),
        (("--perspectives", "lefd"), "no perspective 'lefd': did you mean 'left'?"),
        (("--perspectives", 0), "perspectives is 0: ask for 1 or more"),
        (("--perspectives",), "perspectives is []: give a list of names"),
        (("--task", "liar"), "give --task and --data, or --items and --feedback, not both"),
    ],
)
def test_evaluate_refuses_what_it_cannot_compare(evaluated, tmp_path, arguments, message):
    refused(evaluated(FOUR, *arguments), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to evaluate on: give --task (one of claims, globalopinionqa"),
        (("--task", "opinionq"), "there is no task 'opinionq': did you mean 'opinionqa'?"),
        (("--task", "opinionqa"), "--task opinionqa needs --data: name its file or folder"),
        (("--feedback", "f.jsonl"), "give --items as well"),
    ],
)
def test_evaluate_needs_something_to_evaluate_on(run, tmp_path, arguments, message):
    refused(run("evaluate", *arguments, "--out", tmp_path / "out"), message)


def test_feedback_of_an_unknown_item_is_linked_by_what_it_asks(evaluated):
    """Ids that are written otherwise in the items file cost no row, and change no number."""
    asked = ("--methods", "train-mean", "few-shot", "--json")
    known = json.loads(evaluated(FOUR, *asked).out)
    other = [row | {"item": row["item"].upper()} for row in FOUR]
    without = [{k: v for k, v in row.items() if k != "item"} for row in FOUR]
    for rows in (other, without):
        done = evaluated(rows, *asked)
        assert done.code == 0, done.err
        assert json.loads(done.out)["rows"] == known["rows"]
