"""The plug-in beside the harness's own model; skipped where the harness is not installed."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import refused
from tiny import save_tiny_model

from saepd.cli import main
from saepd.directions.saving import save_to_disk
from saepd.models.load import load_model

lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} "
doc_to_target: label
doc_to_choice: [red, green, dark blue]
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": f"What is colour {i}?", "label": i % 3} for i in range(12)]
    data = folder / "colours.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "colours.yaml").write_text(TASK.format(data=data))
    mutual = TASK.replace("task: colours", "task: mutual")
    mutual = mutual.replace("{{metric: acc_norm}}", "{{metric: acc_mutual_info}}")
    (folder / "mutual.yaml").write_text(mutual.format(data=data))
    (folder / "single.yaml").write_text(
        f"task: single\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        'test_split: test\noutput_type: loglikelihood\ndoc_to_text: "{{question}}"\n'
        'doc_to_target: " red"\nmetric_list: [{metric: acc}]\n'
    )
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("harness") / "model")


@pytest.fixture
def steering(checkpoint, plain, tmp_path):
    model = load_model(checkpoint, device="cpu")
    pair = [plain(1, "answer", norm=4.0), plain(1, "answer", "right", seed=2, norm=4.0)]
    save_to_disk(pair, tmp_path / "steering", model)
    return tmp_path / "steering"


@pytest.fixture
def run(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def test_the_base_scores_as_the_harness_own_model_does(run, tasks, steering, checkpoint, tmp_path):
    out = tmp_path / "results.json"
    done = run(
        *("lm-eval", "--tasks", "colours", "--include-path", tasks, "--steering", steering),
        *("--device", "cpu", "--out", out),
    )
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    assert list(found["branches"]) == ["base", "left", "right", "merged"]
    own = lm_eval.simple_evaluate(
        "hf",
        f"pretrained={checkpoint},dtype=float32",
        tasks=["colours"],
        device="cpu",
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks)),
        bootstrap_iters=0,
    )
    assert found["branches"]["base"]["colours"]["acc,none"] == pytest.approx(
        own["results"]["colours"]["acc,none"]
    )
    ours = {s["doc_id"]: s["filtered_resps"] for s in found["samples"]["base"]["colours"]}
    for sample in own["samples"]["colours"]:
        theirs = [float(score) for score, _ in sample["filtered_resps"]]
        mine = [float(score) for score, _ in ours[sample["doc_id"]]]
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert set(found["against_base"]["merged"]["colours"]) == {"acc", "acc_norm"}
    assert "against the base" in done.out


def test_options_asked_for_without_their_question_are_a_question_of_their_own(
    run, tasks, steering, tmp_path
):
    out = tmp_path / "results.json"
    command = ("lm-eval", "--include-path", tasks, "--steering", steering, "--device", "cpu")
    done = run(*command, "--tasks", "colours", "mutual", "--out", out)
    assert done.code == 0, done.err
    merged = json.loads(out.read_text())["samples"]["merged"]
    for plain, mutual in zip(merged["colours"], merged["mutual"], strict=True):
        scores = [float(score) for score, _ in plain["filtered_resps"]]
        with_alone = [float(score) for score, _ in mutual["filtered_resps"]]
        assert with_alone[:3] == pytest.approx(scores, abs=1e-5)
        assert len(with_alone) == 6


def test_tasks_that_are_no_choice_or_unknown_are_refused(run, tasks, steering):
    command = ("lm-eval", "--include-path", tasks, "--steering", steering, "--device", "cpu")
    refused(run(*command, "--tasks", "single"), "asks how likely single texts are")
    refused(run(*command, "--tasks", "colors"), "knows no task 'colors': did you mean 'colours'?")


def test_the_harness_own_command_line_finds_the_model(tasks, steering):
    arguments = f"steering={steering},branch=merged"
    command = [
        "--model",
        "saepd",
        "--model_args",
        arguments,
        "--tasks",
        "colours",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "saepd.interchange.harness", *command, "--include_path", str(tasks)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "|colours|" in done.stdout.replace(" ", "")


def test_the_entry_point_names_the_model_that_the_harness_knows():
    from lm_eval.api.registry import get_model

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["lm_eval.models"].items()
    loaded = EntryPoint(name, value, "lm_eval.models").load()
    assert loaded is get_model("saepd")
