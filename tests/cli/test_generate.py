import json
import shutil
from pathlib import Path

import pytest
from command_line import refused


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


def test_generate_lays_out_distinct_answers(run, where, steering, prompts):
    shared = ("--style", "plain", "--steering", steering, *where, "--max-new-tokens", 8)
    asked = ("--overton", "--n-samples", 3, "--shares", 0.25, 0.75, *shared)
    done = run("generate", "So what", *asked, "--json")
    assert done.code == 0, done.err
    one = json.loads(done.out)
    assert one["n_samples"] == 3
    assert sum(answer["share"] for answer in one["answers"]) == pytest.approx(1)
    for answer in one["answers"]:
        held = answer["held_by"]
        assert list(held) == ["base", "left", "right"]
        expected = 0.25 * held["left"] + 0.75 * held["right"]
        assert answer["share"] == pytest.approx(expected)
    several = json.loads(run("generate", "--prompts", prompts, *asked, "--json").out)
    assert several[0] == one
    printed = run("generate", "So what", *asked).out
    assert all(answer["text"] in printed for answer in one["answers"])
    # The temperature is the one that is given, and 0.9 else.
    again = run("generate", "So what", *asked, "--json", "--temperature", 0.9)
    assert json.loads(again.out) == one
    hot = run("generate", "So what", *asked, "--json", "--temperature", 5)
    assert json.loads(hot.out) != one


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
        (("So?", "--overton", "--trace", "t"), "drop --overton"),
        (("So?", "--overton", "--alpha", "2"), "--overton merges nothing"),
        (("So?", "--overton", "--per-perspective"), "drop one"),
        (("So?", "--overton", "--temperature", "0"), "at temperature 0 all 4 samples"),
        (("So?", "--overton", "--shares", "1"), "1 shares for 2 perspectives (left, right)"),
        (("So?", "--n-samples", "3"), "are for distinct answers: add --overton"),
        (("So?", "--trace", "."), "is a folder: name a file"),
        (("So?", "--top-k", "5"), "top_k would do nothing at temperature 0"),
        (("So?", "--stop", ""), "stop is ('',): give a list of texts"),
        (
            ("So?", "--temperature", "1", "--min-p", "2"),
            "min_p is 2.0: it must be a finite number",
        ),
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


def test_a_model_without_a_chat_template_continues_plain_text(run, files, steering, tmp_path):
    model = Path(shutil.copytree(files.model, tmp_path / "model"))
    (model / "chat_template.jinja").unlink()
    shared = ("--steering", steering, "--model", model, "--max-new-tokens", 6, "--json")
    done = run("generate", "So what", *shared)
    assert done.code == 0, done.err
    assert "the model has no chat template" in done.err
    assert json.loads(done.out)["prompt"] == "So what"
    refused(run("generate", "So what", "--style", "chat", *shared), "plain")
