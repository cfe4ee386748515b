import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from tiny import SAME

from saepd.common.errors import InputError
from saepd.sweeps.config import RunConfig
from saepd.sweeps.results.frame import read_sweep
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.run import run_point, run_sweep
from saepd.sweeps.space.points import sweep_points

# What no two runs of a sweep may differ in.


def table(folder):
    """The results without times, in the order of their settings."""
    return read_sweep(folder)[SAME].sort_values("key").reset_index(drop=True)


@pytest.fixture
def forwards(monkeypatch):
    """How often any causal language model runs."""
    import transformers

    calls = []
    original = transformers.LlamaForCausalLM.forward

    def counted(self, *args, **kwargs):
        calls.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", counted)
    return calls


def test_every_stage_runs_once_and_decoding_costs_no_forward(small, sweep_of, tmp_path, forwards):
    done = run_sweep(small, tmp_path)
    assert (done.n_points, done.n_failed, done.n_finished_before) == (8, 0, 0)
    assert len(list((tmp_path / "stages" / "feedback").iterdir())) == 1
    assert len(list((tmp_path / "stages" / "directions").iterdir())) == 2
    assert len(list((tmp_path / "stages" / "branches").iterdir())) == 4
    assert done.n_prefixes == (8, 7)
    # Loading checks the SAE with one forward, which is no part of a point.
    assert done.n_forwards == len(forwards) - 1
    # Alone, every point would encode, capture, and run its branches on questions and neutral text.
    one = run_sweep(sweep_of(k=2, coefficient=1, operator="mixture"), tmp_path / "one")
    # (The first branches of a process also try out whether the model can run them as columns.)
    assert 6 * one.n_forwards < done.n_forwards + done.n_forwards_saved <= 8 * one.n_forwards
    assert done.n_forwards < 2 * one.n_forwards

    forwards.clear()
    more = sweep_of(
        k=[2, 4],
        coefficient=[1, 3],
        operator=["mixture", "pluralistic", "cad"],
        alpha=[0.5, 1.0],
        tau=[0.1, 0.5],
    )
    again = run_sweep(more, tmp_path)
    assert (again.n_points, again.n_finished_before, again.n_forwards) == (48, 8, 0)
    assert again.n_forwards_saved > 0
    assert len(forwards) == 1
    frame = read_sweep(tmp_path)
    assert len(frame) == 48
    assert (frame.status == "finished").all()


def test_what_is_finished_is_not_run_again(small, tmp_path, forwards):
    run_sweep(small, tmp_path)
    before = table(tmp_path)
    forwards.clear()
    done = run_sweep(small, tmp_path)
    assert (done.n_finished_before, done.n_forwards, len(forwards)) == (8, 0, 0)
    pd.testing.assert_frame_equal(table(tmp_path), before)


def test_a_point_is_what_a_sweep_of_it_alone_gives(small, tmp_path, files):
    run_sweep(small, tmp_path / "sweep")
    values = files | {"k": 4, "coefficient": 3.0, "operator": "mixture"}
    outcome = run_point(values, tmp_path / "alone")
    [same] = [o for o in ResultStore(tmp_path / "sweep").outcomes() if o.key == outcome.key]
    assert same.result["metrics"] == outcome.result["metrics"]
    assert same.result["rows"] == outcome.result["rows"]
    assert run_point(values, tmp_path / "alone").result == outcome.result


def test_the_numbers_are_those_of_an_evaluation(sweep_of, tmp_path, files):
    """Against the methods of `saepd evaluate` at the same coefficient, which know no stages."""
    from saepd.evaluation.fold import fold_of
    from saepd.evaluation.item_cache import ItemCache
    from saepd.evaluation.methods.merged import base_readout, branch_log_probs, merged
    from saepd.evaluation.methods.nulls import position_bias
    from saepd.evaluation.methods.steered import fold_fit, steer
    from saepd.merge.config import MergeConfig
    from saepd.metrics.distances import js_distance
    from saepd.models.load import load_model
    from saepd.saes.load import load_sae
    from saepd.sweeps.point.question import asked_items, draw_of, task_of
    from saepd.sweeps.space.parameters import point_config

    run_sweep(sweep_of(k=4, coefficient=3, operator="pluralistic"), tmp_path)
    config = point_config(files | {"k": 4, "coefficient": 3})
    task, draw = task_of(config.task), draw_of(config.task, config.draw)
    model = load_model(files["model"], device="cpu")
    sae = load_sae(files["sae"], model=model)
    ids = [item.id for item in asked_items(task, draw)]
    fold = fold_of(draw, task, ItemCache(model, sae, task, ids, draw.test), 0)
    own = {d.perspective: [d] for d in fold_fit(fold, config.fit).directions}
    steered = steer(fold, {"own": own})["own"]
    base = base_readout(fold)
    gold = [task.by_id[id_].distributions[p] for id_, p in fold.asked]

    def distance(one):
        return js_distance([one(task.by_id[id_], p) for id_, p in fold.asked], gold).mean()

    def merge(item, names):
        return merged(branch_log_probs(item, steered, base, names), MergeConfig())

    [row] = read_sweep(tmp_path).itertuples()
    null = position_bias(fold)
    at_null = distance(lambda item, p: null[item.id, p])
    at_own = distance(lambda item, p: steered.probabilities(item.id, p))
    at_merge = distance(lambda item, p: merge(item, list(steered.directions)))
    at_base = distance(lambda item, p: merge(item, [p]))
    assert row.base == pytest.approx(at_null, abs=1e-5)
    assert row.js_distance == pytest.approx(at_merge, abs=1e-5)
    assert row.gain == pytest.approx(at_null - at_merge, abs=1e-5)
    assert row.own_gain == pytest.approx(at_null - at_own, abs=1e-5)
    assert row.with_base_gain == pytest.approx(at_null - at_base, abs=1e-5)
    assert abs(row.own_gain) > 1e-4


def test_a_failed_point_is_told_and_the_sweep_goes_on(sweep_of, tmp_path):
    # The SAE has 64 latents, so nothing survives a density of 0 for any of them.
    sweep = sweep_of(max_density=[0.0, 1.0], k=2)
    done = run_sweep(sweep, tmp_path)
    assert (done.n_points, done.n_failed) == (2, 1)
    frame = read_sweep(tmp_path).set_index("max_density")
    assert "no latent passes the density screen" in frame.error[0.0]
    assert frame.status[1.0] == "finished"
    # It is tried again, and still one row.
    assert run_sweep(sweep, tmp_path).n_failed == 1
    assert len(read_sweep(tmp_path)) == 2


def test_two_processes_do_not_run_one_sweep(small, tmp_path):
    from filelock import FileLock

    tmp_path.mkdir(exist_ok=True)
    with FileLock(tmp_path / ".running"), pytest.raises(InputError, match="a sweep is running in"):
        run_sweep(small, tmp_path)


def test_settings_that_cannot_be_are_refused_before_anything_is_written(sweep_of, tmp_path):
    with pytest.raises(InputError, match="too few for n_feedback 40"):
        run_sweep(sweep_of(n_feedback=[6, 40]), tmp_path / "out")
    with pytest.raises(InputError, match="the metric auroc needs a positive class"):
        run_sweep(sweep_of(metric="auroc"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_metric_is_refused_before_anything_is_loaded(tmp_path, files):
    with pytest.raises(InputError, match=r"no metric 'foo'.*gain"):
        run_point(files | {"model": "no such model"}, tmp_path / "out", metric="foo")
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        run_point(files, tmp_path / "out", metric="acuracy")
    assert not (tmp_path / "out").exists()


def test_a_search_finds_points_and_is_taken_up_again(sweep_of, tmp_path):
    def sweep(cap):
        return sweep_of(
            method="bayes",
            run_cap=cap,
            operator=["cad", "pluralistic"],
            alpha={"min": 0.0, "max": 2.0},
            k={"min": 2, "max": 5},
        )

    run_sweep(sweep(8), tmp_path / "undisturbed")
    run_sweep(sweep(3), tmp_path / "twice")
    assert len(read_sweep(tmp_path / "twice")) == 3
    done = run_sweep(sweep(8), tmp_path / "twice")
    assert done.n_points == 5
    assert len(read_sweep(tmp_path / "twice")) == 8
    pd.testing.assert_frame_equal(table(tmp_path / "twice"), table(tmp_path / "undisturbed"))
    assert set(read_sweep(tmp_path / "twice").k) <= {2, 3, 4, 5}


KILLED = """
import sys
import torch
torch.set_num_threads(1)
from saepd.sweeps.run import run_sweep
run_sweep(sys.argv[1], sys.argv[2], None, lambda *report: print(*report, flush=True))
"""


def test_killed_at_twenty_random_moments_the_table_is_that_of_an_undisturbed_run(
    files, sweep_of, tmp_path
):
    import yaml

    varied = {"k": [2, 3, 4, 6], "coefficient": [1, 2, 3], "alpha": [0.5, 1.0]}
    varied["operator"] = ["mixture", "product", "cad", "dcd", "pluralistic"]
    content = {
        "method": "grid",
        "metric": {"name": "gain"},
        "parameters": {k: {"value": v} for k, v in files.items()}
        | {k: {"values": v} for k, v in varied.items()},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    run_sweep(sweep_of(**varied), tmp_path / "undisturbed")
    rng = random.Random(0)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(file), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def n_done():
        return (
            len(ResultStore(out, create=False).finished())
            if (out / "results.sqlite").exists()
            else 0
        )

    grown = []
    for _ in range(20):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        # It reports once before it loads, and after each point; importing takes seconds, in which
        # there is nothing to lose.
        for _ in range(rng.randint(1, 6)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        grown.append(n_done())
    assert grown == sorted(grown)
    assert sum(0 < n < 120 for n in grown) >= 10, f"few kills came in the middle: {grown}"
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    pd.testing.assert_frame_equal(table(out), table(tmp_path / "undisturbed"), rtol=0, atol=0)
    keys = [point.key for point in sweep_points(sweep_of(**varied))]
    assert sorted(read_sweep(out).key) == sorted(keys)


def test_the_configuration_of_a_run_is_checked():
    with pytest.raises(InputError, match="workers is 0"):
        RunConfig(workers=0)
    with pytest.raises(InputError, match="cache_gb is 0"):
        replace(RunConfig(), cache_gb=0.0)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"backend": "rey"}, "backend is 'rey': did you mean 'ray'"),
        ({"cluster": "lokal"}, "did you mean 'local'"),
        ({"wandb": "onlin"}, "did you mean 'online'"),
        ({"cpus": float("nan")}, "cpus is nan"),
        ({"minutes": 0}, "minutes is 0"),
        ({"gpus": -1}, "gpus is -1"),
        ({"search_seed": -1}, "search_seed is -1"),
        ({"cache_gb": float("inf")}, "cache_gb is inf"),
        ({"workers": "two"}, "workers is 'two'"),
        ({"search_seed": 0.5}, "search_seed is 0.5"),
        ({"backend": "slurm", "gpus": 0.5}, "gpus is 0.5: Slurm gives whole ones"),
        ({"backend": "slurm", "cpus": 1.5}, "cpus is 1.5: Slurm gives whole ones"),
    ],
)
def test_each_setting_of_a_run_is_checked(settings, match):
    with pytest.raises(InputError, match=match):
        RunConfig(**settings)


def test_a_sweep_runs_from_its_file(files, tmp_path):
    import yaml

    parameters = {name: {"value": value} for name, value in (files | {"k": 2}).items()}
    file = tmp_path / "one.yaml"
    content = {"method": "grid", "metric": {"name": "gain"}, "parameters": parameters}
    file.write_text(yaml.safe_dump(content))
    done = run_sweep(str(file), str(tmp_path / "out"))
    assert (done.n_points, done.n_failed) == (1, 0)
    assert read_sweep(tmp_path / "out").k.tolist() == [2]
