import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saepd.models.wording import ReadoutConfig
from saepd.sweeps.point.bench import Bench
from saepd.sweeps.point.question import asked_items, draw_of, task_of
from saepd.sweeps.point.stage_cache import StageCache
from saepd.sweeps.point.stages import keys_by_content, score_point
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.parameters import point_config

KINDS = ("prefix", "feedback", "directions", "branches")


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.fixture
def keys_of(bench, files):
    def keys(**values):
        config = point_config(files | values)
        task, draw = task_of(config.task), draw_of(config.task, config.draw)
        items = asked_items(task, draw)
        fit = replace(config.fit, readout=ReadoutConfig(template=task.wording.plain))
        prompts = [task.wording.text(item.prompt) for item in items]
        return keys_by_content(bench.load(config.where), items, prompts, draw, fit)

    return keys


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"operator": "cad"}, ()),
        ({"alpha": 0.5, "tau": 0.5, "reading": "softmax"}, ()),
        ({"coefficient": 2}, ("branches",)),
        ({"k": 3}, ("directions", "branches")),
        ({"bootstrap_seed": 1}, ("directions", "branches")),
        ({"n_bootstrap": 7}, ("directions", "branches")),
        ({"min_stability": 0.2}, ("directions", "branches")),
        ({"max_density": 0.9}, ("directions", "branches")),
        ({"mode": "clamp"}, ("directions", "branches")),
        ({"factor": 3}, ("directions", "branches")),
        ({"kl_budget": 0.1}, ("directions", "branches")),
        # Against the bare item or against the others, the same texts are read.
        ({"contrast": "anchor"}, ("directions", "branches")),
        ({"contrast": "options"}, ("feedback", "directions", "branches")),
        ({"read_at": "mean"}, ("feedback", "directions", "branches")),
        ({"positions": "all"}, ("prefix", "directions", "branches")),
        ({"seed": 1}, KINDS),
        ({"n_feedback": 7}, KINDS),
        ({"feedback_kind": "answer"}, ("feedback", "directions", "branches")),
        ({"limit": 2}, ("prefix", "branches")),
        ({"dtype": "bfloat16"}, KINDS),
    ],
)
def test_a_stage_is_another_one_where_what_it_depends_on_differs(keys_of, changed, kinds):
    before, after = keys_of(), keys_of(**changed)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == set(kinds)


def test_other_weights_of_the_same_name_are_another_model(keys_of, files, tmp_path):
    from tiny import save_tiny_model

    before = keys_of()
    other = save_tiny_model("llama", tmp_path / "tiny", seed=1)
    after = keys_of(model=str(other))
    assert all(before[kind] != after[kind] for kind in KINDS)


def test_the_same_weights_that_compute_otherwise_are_another_model(keys_of, files, tmp_path):
    before = keys_of()
    other = shutil.copytree(files["model"], tmp_path / "tiny")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    after = keys_of(model=str(other))
    assert all(before[kind] != after[kind] for kind in KINDS)


def test_an_sae_that_encodes_otherwise_is_another_one(bench, files, random_sae):
    from saepd.saes.load import sae_settings

    told = [sae_settings(random_sae("topk", k=k)) for k in (6, 6, 7)]
    assert told[0] == told[1] != told[2]
    assert sae_settings(random_sae()) != told[0]


def test_a_kl_budget_is_kept_by_the_directions(sweep_of, tmp_path):
    from saepd.sweeps.results.frame import read_sweep

    run_sweep(sweep_of(k=4, kl_budget=[0.05, 0.2], operator="mixture"), tmp_path)
    small, large = read_sweep(tmp_path).sort_values("kl_budget").itertuples()
    for row, budget in ((small, 0.05), (large, 0.2)):
        assert 0 < row.kl_to_base <= budget * 1.001
    assert small.kl_to_base < large.kl_to_base


def test_feedback_in_another_order_is_not_read_from_the_first(bench, files, tmp_path):
    """North and south answered the same in both files; who answered more, and comes first, not."""
    rows = [json.loads(line) for line in Path(files["data"]).read_text().splitlines()]

    def config_of(first, extra):
        question = {"id": extra, "prompt": f"Is {extra} good?", "options": ["Yes", "No"]}
        more = question | {"perspective": first, "distribution": [0.5, 0.5]}
        file = tmp_path / f"{first}-{extra}.jsonl"
        file.write_text("\n".join(map(json.dumps, [*rows, more])))
        return point_config(files | {"data": str(file), "k": 4, "coefficient": 3})

    def drawn(config):
        return [(row.perspective, row.id) for row in draw_of(config.task, config.draw).feedback]

    # A question that neither draw takes up.
    pairs = ([config_of(first, f"bread{i}") for first in ("north", "south")] for i in range(99))
    north, south = next(p for p in pairs if sorted(drawn(p[0])) == sorted(drawn(p[1])))
    assert drawn(north) != drawn(south)
    score_point(bench, StageCache(tmp_path / "shared", 10**9), north)
    after = score_point(bench, StageCache(tmp_path / "shared", 10**9), south)
    alone = score_point(bench, StageCache(tmp_path / "alone", 10**9), south)
    assert [d.perspective for d in after.directions] == ["south", "north"]
    for mine, own in zip(after.directions, alone.directions, strict=True):
        assert torch.equal(mine.edit.latents, own.edit.latents)
        assert torch.equal(mine.edit.values, own.edit.values)
    assert torch.equal(after.kl, alone.kl)
    assert all(torch.equal(after.scores[item], alone.scores[item]) for item in alone.scores)
