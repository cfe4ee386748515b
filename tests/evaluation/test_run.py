import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.evaluation import run as run_module
from saepd.evaluation.config import DrawConfig, EvaluationConfig
from saepd.evaluation.methods.method import Method
from saepd.evaluation.methods.registry import METHODS
from saepd.evaluation.run import evaluate
from saepd.models.identity import weights_fingerprint

CONFIG = EvaluationConfig(
    DrawConfig(n_feedback=6, draws=2, feedback_kind="distribution"), few_shot_tokens=150
)
NAMES = ("uniform", "zero-shot", "train-mean", "position-bias", "few-shot")
# What no two runs may differ in.
RESULTS = ("summary.json", "table.md", "predictions.parquet", "items.json", "config.json")


@pytest.fixture
def run(llama, sae, opinions, tmp_path):
    def run(
        folder="out",
        names=NAMES,
        config=CONFIG,
        task=opinions,
        model=llama,
        dictionary=sae,
        **more,
    ):
        out = str(tmp_path / folder)
        return evaluate(model, dictionary, task, config, out, names, **more)

    return run


def written(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_the_files_hold_every_draw_item_perspective_and_method(run, opinions, tmp_path):
    told = []
    summary = run(progress=lambda *step: told.append(step))
    out = tmp_path / "out"
    assert summary == json.loads((out / "summary.json").read_text())
    assert {(row["method"], row["perspective"]) for row in summary["rows"]} == {
        (name, p) for name in NAMES for p in ("all", "north", "south")
    }
    frame = pd.read_parquet(out / "predictions.parquet")
    assert not frame.duplicated(["draw", "item", "perspective", "method"]).any()
    assert set(frame.draw) == {0, 1}
    assert len(frame) == 2 * sum(summary["n_test_items"]) * len(NAMES)
    for row in frame.itertuples():
        np.testing.assert_allclose(sum(row.probabilities), 1, atol=1e-6)
        np.testing.assert_allclose(
            row.gold, opinions.by_id[row.item].distributions[row.perspective]
        )
    assert told[0] == ("draw 1: uniform", 0, 10)
    assert told[-1] == ("done", 10, 10)
    assert set(json.loads((out / "run.json").read_text())) == {"began", "ended", "seconds"}
    assert (out / "table.md").read_text().count("| null |") == len(NAMES) + 1


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_a_run_that_was_killed_and_started_again_is_as_if_undisturbed(
    run, tmp_path, monkeypatch, after
):
    run("undisturbed")
    calls = []

    def counted(name):
        def predict(fold, method=METHODS[name]):
            calls.append(name)
            if len(calls) == after + 1:
                raise KeyboardInterrupt
            return method.predict(fold)

        return replace(METHODS[name], predict=predict)

    for name in NAMES:
        monkeypatch.setitem(METHODS, name, counted(name))
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert len(list((tmp_path / "killed").glob("parts/*/*.json"))) == after
    run("killed")
    # What was finished is not done again; what was cut off is.
    assert len(calls) == len(NAMES) * 2 + 1
    assert written(tmp_path / "killed") == written(tmp_path / "undisturbed")
    run("killed")
    assert len(calls) == len(NAMES) * 2 + 1
    assert written(tmp_path / "killed") == written(tmp_path / "undisturbed")


def test_side_effects_are_told_for_methods_that_have_branches(run, monkeypatch):
    def branches(fold):
        return {name: Direction(name, SITE, AddVector(torch.zeros(D_MODEL))) for name in ("north",)}

    still = replace(METHODS["zero-shot"], branches=branches)
    monkeypatch.setitem(METHODS, "still", still)
    rows = {(r["method"], r["perspective"]): r for r in run(names=["uniform", "still"])["rows"]}
    for name in ("all", "north"):
        assert rows["still", name]["kl_to_base"] == pytest.approx(0, abs=1e-5)
        assert rows["still", name]["perplexity_ratio"] == pytest.approx(1, abs=1e-4)
    assert rows["still", "south"]["kl_to_base"] is None
    assert rows["uniform", "all"]["perplexity_ratio"] is None


def test_methods_can_be_added_to_a_finished_folder(run, tmp_path):
    run("grown", NAMES[:2])
    assert len(list((tmp_path / "grown").glob("parts/*/*.json"))) == 4
    run("grown")
    run("at once")
    assert written(tmp_path / "grown") == written(tmp_path / "at once")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 1}, "an evaluation with seed 0, not 1: use another folder"),
        ({"n_feedback": 5}, "an evaluation with n_feedback 6, not 5"),
        ({"limit": 2}, "an evaluation with limit None, not 2"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(run, tmp_path, changes, match):
    run(names=["uniform"])
    before = written(tmp_path / "out")
    with pytest.raises(InputError, match=match):
        run(names=["uniform"], config=replace(CONFIG, draw=replace(CONFIG.draw, **changes)))
    assert written(tmp_path / "out") == before
    (tmp_path / "out" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not what an evaluation wrote"):
        run(names=["uniform"])


def test_a_folder_computed_by_something_else_is_refused(run, tmp_path, llama, sae, monkeypatch):
    run(names=["uniform"])
    before = written(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "version", lambda name: "0.0" if name == "torch" else "1.0")
        with pytest.raises(
            InputError, match=r"version of \S+ '.*', not '\d.0': use another folder, or delete it"
        ):
            run(names=["uniform"])
    half = copy.deepcopy(llama).to(torch.bfloat16)
    assert weights_fingerprint(half) == weights_fingerprint(llama)
    with pytest.raises(InputError, match=r"with dtype 'torch.float32', not 'torch.bfloat16'"):
        run(names=["uniform"], model=half)
    with monkeypatch.context() as patch:
        patch.setattr(llama.original_model.config, "hidden_act", "gelu")
        with pytest.raises(InputError, match="an evaluation with model_settings"):
            run(names=["uniform"])
    other = copy.deepcopy(sae)
    with torch.no_grad():
        other.W_dec += 0.1
    with pytest.raises(InputError, match="an evaluation with sae_fingerprint"):
        run(names=["uniform"], dictionary=other)
    weight = llama.original_model.get_input_embeddings().weight
    kept = weight.clone()
    try:
        with torch.no_grad():
            weight += 0.1
        with pytest.raises(InputError, match="an evaluation with model_fingerprint"):
            run(names=["uniform"])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert written(tmp_path / "out") == before
    run(names=["uniform"])


def test_a_folder_of_another_task_is_refused(run, opinions, tmp_path):
    run(names=["uniform"])
    with pytest.raises(InputError, match="an evaluation with perspectives"):
        run(names=["uniform"], task=opinions.only(["north"]))
    other = replace(opinions, items=opinions.items[::-1])
    with pytest.raises(InputError, match="an evaluation with task_sha256"):
        run(names=["uniform"], task=other)


def test_answers_that_cannot_be_read_are_counted_and_count_as_uniform(run, monkeypatch, tmp_path):
    def silent(fold):
        return fold.predict(lambda item, _: np.full(len(item.options), np.nan))

    monkeypatch.setitem(METHODS, "silent", Method("silent", silent, "says nothing", null=False))
    rows = {(r["method"], r["perspective"]): r for r in run(names=["uniform", "silent"])["rows"]}
    for name in ("all", "north"):
        silent, uniform = rows["silent", name], rows["uniform", name]
        assert (silent["unreadable"], uniform["unreadable"]) == (1, 0)
        assert silent["js_distance"] == uniform["js_distance"]
        assert silent["js_minus_best_null"] == [0, 0, 0]
    frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert (frame.readable == (frame.method != "silent")).all()


def test_half_a_prediction_and_missing_ones_are_defects(run, monkeypatch):
    def half(fold):
        return fold.predict(lambda item, _: np.array([np.nan, *np.ones(len(item.options) - 1)]))

    monkeypatch.setitem(METHODS, "half", Method("half", half, "half a number"))
    with pytest.raises(InputError, match="the method half gives"):
        run("half", ["half"])
    monkeypatch.setitem(METHODS, "none", Method("none", lambda fold: {}, "nothing"))
    with pytest.raises(RuntimeError, match="did not predict exactly what it was asked"):
        run("none", ["none"])


def test_labelled_tasks_have_their_own_metrics(run, labels):
    draws = DrawConfig(n_feedback=10, draws=2, feedback_kind="distribution")
    names = ["uniform", "train-mean", "zero-shot", "few-shot", "linear-probe-residual"]
    summary = run(names=names, config=EvaluationConfig(draws, 150), task=labels)
    rows = {(r["method"], r["perspective"]): r for r in summary["rows"]}
    probe = rows["linear-probe-residual", "north"]
    # The text itself says what this perspective answers.
    assert probe["auroc"] == 1
    assert rows["uniform", "north"]["auroc"] == 0.5
    assert {"macro_f1", "recall", "ece", "brier", "false_positive_rate"} <= set(probe)
    assert summary["rows"][0]["best_null"] in names


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    run, opinions, sae, tmp_path
):
    items = tuple(
        item.model_copy(update={"distributions": {"all": item.distributions["north"]}})
        for item in opinions.items
    )
    with pytest.raises(InputError, match="a perspective is called 'all'"):
        run(task=replace(opinions, items=items))
    with pytest.raises(InputError, match="unknown method 'unifrom': did you mean 'uniform'"):
        run(names=["unifrom"])
    with pytest.raises(InputError, match="no methods"):
        run(names=[])
    with pytest.raises(InputError, match="too few for n_feedback 20"):
        run(config=replace(CONFIG, draw=DrawConfig(n_feedback=20)))
    with pytest.raises(InputError, match="two SAEs are of the site"):
        run(dictionary=[sae, sae])
    assert not (tmp_path / "out").exists()


def test_a_further_sae_of_other_settings_is_another(run, sae, random_sae):
    six, seven = (random_sae("topk", k=k, hook_name="blocks.2.hook_resid_post") for k in (6, 7))
    run(names=["uniform"], dictionary=[sae, six])
    with pytest.raises(InputError, match=r"an evaluation with also blocks\.2\.hook_resid_post"):
        run(names=["uniform"], dictionary=[sae, seven])


def test_the_order_of_names_is_no_other_configuration(run, opinions):
    wordings = [
        replace(opinions.wording, names=names)
        for names in (
            {"north": "the North", "south": "the South"},
            {"south": "the South", "north": "the North"},
        )
    ]
    first, second = (
        run(f"out {i}", names=("uniform",), task=replace(opinions, wording=wording))
        for i, wording in enumerate(wordings)
    )
    assert first["config"]["task_sha256"] == second["config"]["task_sha256"]
