import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny import save_tiny_model, save_tiny_sae

from saepd.cli import COMMANDS, demo, main
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE

OPTIONS = ["Yes", "No", "Unsure"]
# So little feedback on so small a model: nothing is screened out.
LENIENT = ["--k", "4", "--n-bootstrap", "8", "--min-stability", "0", "--max-density", "1"]


@pytest.fixture(autouse=True)
def as_before():
    """What a command changes for its process does not reach other tests."""
    environment = set(os.environ)
    loggers = [logging.getLogger(n) for n in ("transformers", "sae_lens", "httpx")]
    levels = [logger.level for logger in loggers]
    yield
    for name in set(os.environ) - environment:
        del os.environ[name]
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def feedback_row(i, perspective, **more):
    return {
        "id": f"{perspective}{i}",
        "perspective": perspective,
        "prompt": f"Q{i % 4}?",
        "item": f"q{i % 4}",
        "options": OPTIONS,
        "answer": OPTIONS[(i + (perspective == "left")) % 2],
        **more,
    }


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of a tiny model, an SAE that fits it, and feedback."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [feedback_row(i, p) for p in ("left", "right") for i in range(8)]
    return types.SimpleNamespace(
        folder=folder,
        model=str(save_tiny_model("llama", folder / "model")),
        sae=str(save_tiny_sae(folder / "sae")),
        feedback=write_rows(folder / "feedback.jsonl", rows),
    )


@pytest.fixture(scope="module")
def where(files):
    return ["--model", files.model, "--sae", files.sae, "--device", "cpu"]


@pytest.fixture(scope="module")
def steering(files, where):
    out = files.folder / "steering"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["fit", "--feedback", files.feedback, "--out", str(out), *where, *LENIENT]) == 0
    return str(out)


@pytest.fixture
def run(capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as exit:
            # argparse leaves by itself where it cannot read an option.
            code = exit.code
        return types.SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def in_a_process(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def refused(done, *expected):
    """The last line says what is wrong; nothing was printed as a result."""
    assert (done.code, done.out) == (2, "")
    # A bar of transformers' may stand before it: here, it was imported before it could be quieted.
    *before, line = done.err.splitlines()
    assert line.startswith("saepd")
    assert not any(text.startswith(("saepd", "Traceback")) for text in before)
    for text in expected:
        assert text in line


# --- what the commands do ---


def test_fit_writes_a_direction_for_each_perspective(run, files, where, tmp_path):
    out = tmp_path / "steering"
    done = run("fit", "--feedback", files.feedback, "--out", out, "--json", *where, *LENIENT)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["out"] == str(out)
    assert [d["perspective"] for d in found["directions"]] == ["left", "right"]
    assert [d["n_feedback"] for d in found["directions"]] == [8, 8]
    assert {d["n_latents"] for d in found["directions"]} == {4}
    assert found["overlap"].keys() == {"left / right"}
    assert found["overlap"]["left / right"].keys() == {"same", "opposite"}
    assert all(d["n_by_chance"] >= 0 for d in found["directions"])
    story = json.loads((out / CONFIG_FILE).read_text())
    assert [d["perspective"] for d in story["directions"]] == ["left", "right"]
    assert story["directions"][0]["lineage"]["model"] == "model"
    assert load_file(out / WEIGHTS_FILE)["0.latents"].shape == (4,)
    assert sorted(p.name for p in out.iterdir()) == sorted([CONFIG_FILE, WEIGHTS_FILE])


def test_fit_draws_as_much_feedback_as_it_is_told(run, files, where, tmp_path):
    done = run(
        *("fit", "--feedback", files.feedback, "--out", tmp_path, "--json", "--n-feedback", 3),
        *(*where, *LENIENT, "--coefficient", 2.5, "--positions", "last(2)"),
    )
    directions = json.loads(done.out)["directions"]
    assert [d["n_feedback"] for d in directions] == [3, 3]
    assert {(d["coefficient"], d["positions"]) for d in directions} == {(2.5, "last(2)")}


def test_features_are_explained(run, files, where, tmp_path):
    out = tmp_path / "features.json"
    done = run(
        "features", "--feedback", files.feedback, "--top", 2, "--json", "--out", out, *where,
        *LENIENT,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads(out.read_text())
    assert [f["perspective"] for f in found["features"]] == ["left"] * 2 + ["right"] * 2
    for feature in found["features"]:
        assert 0 <= feature["latent"] < 64
        assert set(feature["effect"]) == {"left", "right"}
        assert len(feature["tokens"]) == 10


def test_features_without_a_screen_are_json_too(run, files, where, tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    arguments = ("--feedback", files.feedback, "--k", 0, "--top", 2, "--json", *where)
    done = run("features", *arguments, "--out", tmp_path / "features.json")
    assert done.code == 0, done.err
    features = json.loads(done.out, parse_constant=refuse)["features"]
    assert [f["stability"] for f in features] == [None] * 4


def test_answer_gives_every_branch_and_the_merge(run, where, steering):
    question = ("answer", "So?", "--options", *OPTIONS, "--steering", steering, *where)
    done = run(*question, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["question"], found["options"]) == ("So?", OPTIONS)
    assert list(found["branches"]) == list(found["mass"]) == ["base", "left", "right"]
    for p in (*found["branches"].values(), found["merged"]):
        assert len(p) == 3
        assert sum(p) == pytest.approx(1, abs=1e-5)
    assert found["branches"]["left"] != found["branches"]["right"]
    assert 0 < found["disagreement_nats"] < 1.0987
    mixed = json.loads(run(*question, "--json", "--operator", "mixture").out)
    assert mixed["operator"] == "mixture"
    for i, p in enumerate(mixed["merged"]):
        assert p == pytest.approx(sum(row[i] for row in mixed["branches"].values()) / 3, abs=1e-5)
    table = run(*question).out
    assert all(word in table for word in ("base", "left", "right", "merged (pluralistic)", "nats"))


def test_generate_prints_what_its_json_holds(run, where, steering):
    asked = ("generate", "So what", "--style", "plain", "--steering", steering, *where)
    options = ("--max-new-tokens", 12, "--temperature", 2, "--seed", 3)
    done = run(*asked, *options, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["prompt"] == "So what"
    assert found["text"]
    assert run(*asked, *options).out == found["text"] + "\n"
    chat = json.loads(run("generate", "So what", "--steering", steering, "--json", *where).out)
    assert chat["prompt"] == "<|start|>user\nSo what<|end|>\n<|start|>assistant\n"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("So what\n\nWhat is it?: then\r\n", encoding="utf-8-sig")
    return path


def test_generate_continues_each_prompt_of_a_file_as_it_would_alone(run, where, steering, prompts):
    shared = ("--style", "plain", "--steering", steering, *where, "--max-new-tokens", 12)
    drawn = ("--temperature", 2, "--top-k", 40, "--min-p", 0.01, "--stop", "q", "zz")
    alone = [
        json.loads(run("generate", p, *shared, *drawn, "--json").out)
        for p in ("So what", "What is it?: then")
    ]
    assert [set(found) for found in alone] == [{"prompt", "text", "ended_by"}] * 2
    done = run("generate", "--prompts", prompts, *shared, *drawn, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == alone
    plain = run("generate", "--prompts", prompts, *shared, *drawn).out
    assert plain == "".join(f"> {found['prompt']}\n{found['text']}\n" for found in alone)


def test_generate_writes_as_each_perspective_on_its_own(run, where, steering, prompts):
    shared = ("--style", "plain", "--steering", steering, *where, "--max-new-tokens", 8)
    asked = ("--per-perspective", *shared)
    one = json.loads(run("generate", "So what", *asked, "--json").out)
    assert list(one["texts"]) == ["base", "left", "right"]
    for name, weights in (("base", (1, 0, 0)), ("left", (0, 1, 0)), ("right", (0, 0, 1))):
        merge = ("--operator", "weighted", "--weights", *weights)
        alone = json.loads(run("generate", "So what", *shared, *merge, "--json").out)
        assert one["texts"][name] == alone["text"]
    several = json.loads(run("generate", "--prompts", prompts, *asked, "--json").out)
    assert several[0] == one
    assert several[1]["prompt"] == "What is it?: then"
    printed = "".join(f"[{name}] {text}\n" for name, text in one["texts"].items())
    assert run("generate", "So what", *asked).out == printed
    assert run("generate", "--prompts", prompts, *asked).out.startswith(f"> So what\n{printed}> ")


def test_generate_traces_what_it_writes(run, where, steering, prompts, tmp_path):
    trace = tmp_path / "deep" / "trace.jsonl"
    shared = ("--style", "plain", "--steering", steering, *where, "--max-new-tokens", 5)
    done = run("generate", "--prompts", prompts, *shared, "--trace", trace, "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    for found, line in zip(json.loads(done.out), lines, strict=True):
        assert found == {key: line[key] for key in found}
        assert line["branches"] == ["base", "left", "right"]
        assert [step["token"] for step in line["steps"]] == line["tokens"]
        assert all(len(step["top"]) == 3 for step in line["steps"])
    # A single prompt is written as it would have been without a trace.
    asked = ("generate", "So what", *shared)
    assert run(*asked, "--trace", trace).out == run(*asked).out == lines[0]["text"] + "\n"
    assert len(trace.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((), "no prompt: give one, or a file of them with --prompts"),
        (
            ("So?", "--prompts", "FILE"),
            "give one prompt or a file of them with --prompts, not both",
        ),
        (("--prompts", "NONE"), "NONE: No such file or directory: name a readable file"),
        (("--prompts", "EMPTY"), "EMPTY holds no prompts: write one a line"),
        (("--prompts", "BYTES"), "BYTES is not UTF-8"),
        (("So?", "--per-perspective", "--trace", "t"), "--trace says how the merged text came"),
        (("So?", "--per-perspective", "--alpha", "2"), "--per-perspective merges nothing"),
        (("So?", "--trace", "."), "is a folder: name a file"),
        (("So?", "--top-k", "5"), "top_k would do nothing at temperature 0"),
        (("So?", "--stop", ""), "stop is ('',): give a list of texts"),
        (("So?", "--temperature", "1", "--min-p", "2"), "min_p is 2.0: it must be in [0, 1]"),
    ],
)
def test_generate_refuses_what_it_cannot_write(
    run, where, steering, tmp_path, monkeypatch, arguments, match
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("So?")
    (tmp_path / "EMPTY").write_text("\n \n")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe")
    refused(run("generate", *arguments, "--steering", steering, *where), match)


def test_answer_without_options_is_free_text(run, where, steering):
    done = run(
        "answer", "So?", "--steering", steering, "--max-new-tokens", 8, "--json", *where
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["prompt"] == "A survey asked: So?\nMost people answered:"
    assert found["text"]


@pytest.fixture
def items(tmp_path):
    rows = [
        {"id": f"q{i}", "prompt": f"Q{i}?", "options": OPTIONS, "perspective": p}
        | {"distribution": [0.5, 0.3, 0.2] if p == "left" else [0.1, 0.1 * i, 0.9 - 0.1 * i]}
        for i in range(4)
        for p in ("left", "right")
    ]
    return write_rows(tmp_path / "items.jsonl", rows)


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


def test_the_demo_is_an_evaluation_on_the_packaged_survey(run, where, tmp_path, monkeypatch):
    # A tiny model's context has no room for an example and a question of the survey.
    methods = tuple(name for name in demo.METHODS if name != "few-shot")
    monkeypatch.setattr(demo, "METHODS", methods)
    out = tmp_path / "demo"
    small = ("--n-feedback", 6, "--draws", 1, "--limit", 2)
    done = run("demo", "--out", out, *small, *where)
    assert done.code == 0, done.err
    results = json.loads((out / "results.json").read_text())
    shown = [row["method"] for row in results["rows"] if row["perspective"] == "all"]
    assert tuple(shown) == methods
    shown = " ".join(done.out.split())
    assert results["finding"] in shown
    people = results["example"]["people"]
    assert people.keys() == {"Democrat", "Independent", "Republican"}
    assert results["example"]["branches"].keys() == {"base", *people}
    assert {found["perspective"] for found in results["features"]} == people.keys()
    assert {path.name for path in (out / "steering").iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    # It is the same evaluation: asked for by its task, all of it is there already.
    asked = ("--task", "gss", "--methods", *methods, "--out", out, "--json")
    again = run("evaluate", *asked, *small, *where)
    assert again.code == 0, again.err
    assert json.loads(again.out)["rows"] == results["rows"]
    assert json.loads((out / "run.json").read_text())["seconds"] == {}


def test_evaluate_takes_perspectives_by_number_or_name(evaluated):
    done = evaluated(FOUR, "--methods", "uniform", "--json", "--perspectives", "right")
    assert json.loads(done.out)["config"]["perspectives"] == ["right"]
    done = evaluated(FOUR, "--methods", "uniform", "--perspectives", 1)
    refused(done, "holds an evaluation with perspectives ['right'], not ['left']")


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
        (("--draws", 0), "draws is 0: it must be at least 1"),
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


# --- bad rows ---

BAD = {
    2: ('{"id": "half", "perspective": ', "row", "not JSON"),
    4: (json.dumps(feedback_row(1, "left", answer="Maybe")), "answer", "'Maybe' is not an option"),
    5: (json.dumps(feedback_row(2, "left", opinion="x")), "opinion", "no such field"),
    7: (json.dumps(feedback_row(3, "")), "perspective", "empty"),
    8: (json.dumps(feedback_row(0, "left")), "id", "used by an earlier row"),
}


def test_triage_ranks_asks_and_its_answers_are_feedback(
    run, files, where, steering, items, tmp_path
):
    quick = ["--n-samples", "2", "--max-new-tokens", "4"]
    rows = [json.loads(line) for line in Path(items).read_text().splitlines()]
    asked = {row["id"] for row in rows} | {"free"}
    data = write_rows(
        tmp_path / "t.jsonl", [*rows, {"id": "free", "prompt": "Why?", "options": []}]
    )
    to_triage = ["triage", "--data", data, "--steering", steering, *where, *quick]
    out = tmp_path / "out"
    done = run(*to_triage, "--budget", 3, "--out", out, "--feedback", files.feedback)
    assert done.code == 0, done.err
    assert "flips the answer" in done.out or "entropy" in done.out
    ranked = [json.loads(line) for line in (out / "triage.jsonl").read_text().splitlines()]
    assert [row["rank"] for row in ranked] == [1, 2, 3]
    assert {row["id"] for row in ranked} <= asked
    questions = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert [row["item"] for row in questions] == [row["id"] for row in ranked]
    # Unanswered, they are refused; answered, they are fitted on with what there was before.
    empty = run("fit", "--feedback", out / "questions.jsonl", "--out", tmp_path / "no", *where)
    assert empty.code == 2 and "answer: missing: give an answer" in empty.err
    answered = [
        row | {"perspective": "left", "answer": (row["options"] or ["So."])[0]} for row in questions
    ]
    before = [json.loads(line) for line in Path(files.feedback).read_text().splitlines()]
    together = write_rows(tmp_path / "both.jsonl", [*before, *answered])
    fitted = run(
        "fit", "--feedback", together, "--out", tmp_path / "again", "--json", *where, *LENIENT
    )
    assert fitted.code == 0, fitted.err
    counts = {d["perspective"]: d["n_feedback"] for d in json.loads(fitted.out)["directions"]}
    assert counts == {"left": 11, "right": 8}


def test_triage_refuses_what_it_cannot_rank(run, where, steering, items, tmp_path):
    asked = ["triage", "--steering", steering, *where]
    out = ["--out", tmp_path / "out"]
    refused(run(*asked, "--data", items, "--budget", 0, *out), "--budget is 0")
    refused(run(*asked, "--data", tmp_path / "none.jsonl", *out), "none.jsonl")
    one = write_rows(tmp_path / "one.jsonl", [{"id": "q", "prompt": "Q?", "options": ["Yes"]}])
    bad = run(*asked, "--data", one, *out)
    assert bad.code == 2 and "line 1, options: only one option ('Yes')" in bad.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def mixed(tmp_path):
    """Feedback in which five rows are wrong, each in its own way; eight are good."""
    good = iter([json.dumps(feedback_row(i, p)) for i in range(4) for p in ("left", "right")])
    lines = [BAD[n][0] if n in BAD else next(good) for n in range(1, 14)]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_bad_rows_are_reported_at_once_and_nothing_is_written(run, where, mixed, tmp_path):
    out = tmp_path / "steering"
    done = run("fit", "--feedback", mixed, "--out", out, *where, *LENIENT)
    assert (done.code, done.out) == (2, "")
    first, *lines = done.err.splitlines()
    assert first == f"saepd fit: {mixed}: 5 bad rows"
    assert len(lines) == len(BAD)
    for line, (number, (_, field, message)) in zip(lines, BAD.items(), strict=True):
        assert line.startswith(f"{mixed}, line {number}, {field}: ")
        assert message in line
    assert not out.exists()


def test_bad_rows_can_be_left_out(run, where, mixed, tmp_path):
    out = tmp_path / "steering"
    done = run(
        "fit", "--feedback", mixed, "--out", out, "--skip-bad", "--json", *where, *LENIENT
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"{mixed}: went on without 5 bad rows" in done.err
    assert [d["n_feedback"] for d in json.loads(done.out)["directions"]] == [4, 4]
    assert (out / WEIGHTS_FILE).is_file()


# --- other bad input ---


def test_an_unknown_command_is_refused(run):
    refused(run("anser"), "unknown command 'anser': did you mean 'answer'?")
    refused(run("zzzz"), f"unknown command 'zzzz': use one of {', '.join(COMMANDS)}")


def test_one_option_is_no_choice(run, where, steering):
    done = run("answer", "So?", "--options", "Yes", "--steering", steering, *where)
    refused(done, "saepd answer: one option is no choice: give two or more, or none for free text")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--operator", "mixtur"), "unknown merge operator 'mixtur': did you mean 'mixture'?"),
        (("--tau", 0), "tau is 0"),
        (("--temperature", -1), "the temperature is -1"),
        (("--answer-temperature", 0), "the temperature is 0"),
        (("--dtype", "float12"), '"float12" for --dtype. Choose from'),
    ],
)
def test_settings_out_of_range_are_refused(run, where, steering, settings, message):
    asked = ("answer", "So?", "--options", "Yes", "No", "--steering", steering)
    refused(run(*asked, *where, *settings), message)


@pytest.mark.parametrize(
    "arguments", [("fit",), ("answer", "So?", "--no-such-option"), ("fit", "--k", "many")]
)
def test_options_that_cannot_be_read_are_refused(run, arguments):
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"saepd {arguments[0]}: ")
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err


def test_fit_learns_scales_and_says_whether_they_help(run, files, where, tmp_path):
    out = tmp_path / "steering"
    rows = [
        feedback_row(i, p, prompt=f"Question {i}?", item=f"q{i}")
        for p in ("left", "right")
        for i in range(8)
    ]
    feedback = write_rows(tmp_path / "eight.jsonl", rows)
    learn = ("fit", "--feedback", feedback, "--out", out, "--learn", *where)
    done = run(*learn)
    assert done.code == 0, done.err
    assert "without steering" in done.out
    found = json.loads(run(*learn, "--json").out)
    assert [d["perspective"] for d in found["directions"]] == ["left", "right"]
    helps = found["loss"] < found["unsteered_loss"]
    assert ("Steering does not help" in done.out) != helps
    story = json.loads((out / CONFIG_FILE).read_text())
    assert story["directions"][0]["lineage"]["learned"]["loss"] == found["loss"]
    asked = ("answer", "Question 1?", "--options", *OPTIONS, "--steering", out, "--json", *where)
    answers = json.loads(run(*asked).out)["branches"]
    # Of each question the two said the opposite.
    assert np.argmax(answers["left"]) != np.argmax(answers["right"])
    refused(run(*learn, "--k", 3), "--learn chooses latents itself")
    few = ("fit", "--feedback", files.feedback, "--out", out, "--learn", *where)
    refused(run(*few), "4 questions of feedback are too few for 5 folds")


def test_missing_files_are_named(run, files, where, tmp_path):
    none = tmp_path / "none"
    fit = ("fit", "--out", tmp_path / "out")
    refused(run(*fit, "--feedback", f"{none}.jsonl", *where), f"cannot read {none}.jsonl")
    model = ("--model", f"{none}", "--sae", files.sae)
    refused(run(*fit, "--feedback", files.feedback, *model), f"no such model folder: {none}")
    sae = ("--model", files.model, "--sae", f"{none}")
    refused(run(*fit, "--feedback", files.feedback, *sae), f"no such SAE folder: {none}")
    asked = ("generate", "So?", "--steering", f"{none}")
    refused(run(*asked, *where), f"{none} holds no directions")
    assert not (tmp_path / "out").exists()


def test_a_model_of_ones_own_needs_an_sae_of_its_own(run, files, tmp_path):
    done = run(
        "fit", "--feedback", files.feedback, "--out", tmp_path / "out", "--model", files.model
    )  # fmt: skip
    refused(done, "a model of your own needs an SAE of its own")


@pytest.mark.parametrize("damage", ["another width", "truncated", "another site", "another model"])
def test_an_sae_that_does_not_fit_is_refused(run, files, tmp_path, damage):
    settings = {
        "another width": {"d_in": 48},
        "truncated": {},
        "another site": {"hook_name": "blocks.9.hook_resid_post"},
        "another model": {"model_name": "somebody/else"},
    }
    message = {
        "another width": "expects vectors of width 48, but blocks.1.hook_resid_post of model has",
        "truncated": "cannot load the SAE in",
        "another site": "blocks.9.hook_resid_post, which model does not have",
        "another model": "made for somebody/else, but the model is model",
    }
    folder = save_tiny_sae(tmp_path / "sae", **settings[damage])
    if damage == "truncated":
        weights = folder / "sae_weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    out = tmp_path / "out"
    done = run(
        *("fit", "--feedback", files.feedback, "--out", out),
        *("--model", files.model, "--sae", folder, *LENIENT),
    )
    refused(done, message[damage])
    assert not out.exists()


def test_directions_of_another_model_or_sae_are_refused(run, files, steering, tmp_path):
    other = save_tiny_model("llama", tmp_path / "model", seed=1)
    asked = ("answer", "So?", "--options", "Yes", "No", "--steering", steering)
    done = run(*asked, "--model", other, "--sae", files.sae)
    refused(done, "were made with other weights of this model")
    sae = save_tiny_sae(tmp_path / "sae", "jumprelu")
    refused(run(*asked, "--model", files.model, "--sae", sae), "was made with another SAE")


def test_an_interrupt_is_no_traceback(run, monkeypatch):
    from saepd.cli import fit

    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "run", interrupted)
    done = run("fit", "--out", "x")
    assert (done.code, done.out, done.err) == (130, "", "saepd fit: interrupted\n")


def test_a_defect_keeps_its_traceback(monkeypatch):
    from saepd.cli import fit

    def broken(_options):
        raise ZeroDivisionError

    monkeypatch.setattr(fit, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["fit", "--out", "x"])


# --- help, and a process of its own ---


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ()])
def test_help_lists_every_command(run, arguments):
    done = run(*arguments)
    assert done.code == (0 if arguments else 2)
    assert all(f"  {name} " in done.out and text in done.out for name, text in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run, command):
    done = run(command, "--help")
    assert done.code == 0
    assert COMMANDS[command] in " ".join(done.out.split())
    assert f"saepd {command} " in done.out.partition("examples:")[2]


def test_the_version_is_the_packages(run):
    from importlib.metadata import version

    assert run("--version").out == version("saepd") + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zzzz",), "saepd: unknown command 'zzzz'"),
        (("fit", "--out", "x", "--feedback", "none.jsonl"), "saepd fit: cannot read none.jsonl"),
        (("fit", "--out", "x", "--feedback", "none.txt"), "unknown suffix '.txt'"),
    ],
)
def test_a_process_ends_with_one_line_and_code_two(arguments, message):
    done = in_a_process("-m", "saepd.cli", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert message in line


def test_a_process_that_loads_a_model_says_no_more_than_that(files, tmp_path):
    folder = save_tiny_sae(tmp_path / "sae")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = in_a_process(
        *("-m", "saepd.cli", "fit", "--out", str(tmp_path / "out")),
        *("--feedback", files.feedback, "--model", files.model, "--sae", str(folder)),
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"saepd fit: cannot load the SAE in {folder}: ")
    assert not (tmp_path / "out").exists()


HEAVY = "{'torch', 'transformers', 'numpy', 'transformer_lens', 'sae_lens'}"


@pytest.mark.parametrize(
    "code",
    [
        "import saepd; dir(saepd); saepd.InputError",
        "from saepd.cli import main; assert main(['--help']) == 0",
        "from saepd.cli import main; assert main(['--version']) == 0",
        "from saepd.cli import main; assert main(['zzzz']) == 2",
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(code):
    done = in_a_process("-c", f"{code}\nimport sys; print(*({HEAVY} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


def test_no_help_of_a_command_imports_anything_heavy():
    code = (
        "import sys; from saepd.cli import COMMANDS, demo, main\n"
        "for name in set(COMMANDS) - {'demo'}:\n"
        "    assert main([*name.split(), '--help-all']) == 0\n"
        f"    assert not ({HEAVY} - {{'numpy'}}) & set(sys.modules), name"
    )
    done = in_a_process("-c", code)
    assert done.returncode == 0, done.stderr
