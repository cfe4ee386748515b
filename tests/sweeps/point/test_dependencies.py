from dataclasses import replace

import pytest

from saepd.sweeps.point import dependencies
from saepd.sweeps.point.dependencies import STAGES, keys_by_settings, stage_key, stage_keys
from saepd.sweeps.space.parameters import point_config


def test_keys_tell_kind_version_and_content_apart(monkeypatch):
    before = [stage_key("prefix", {"x": 1, "y": 2}), stage_key("branches", {"x": 1, "y": 2})]
    changed = STAGES | {"prefix": replace(STAGES["prefix"], version=99)}
    assert stage_key("prefix", {"y": 2, "x": 1}) == before[0]
    keys = {*before, stage_key("prefix", {"x": 2, "y": 2})}
    monkeypatch.setattr(dependencies, "STAGES", changed)
    assert len(keys | {stage_key("prefix", {"x": 1, "y": 2})}) == 4


def test_a_stage_comes_after_those_it_takes():
    for kind, stage in STAGES.items():
        known = list(STAGES)[: list(STAGES).index(kind)]
        assert set(stage.after) <= set(known)


def test_an_ingredient_changes_its_stage_and_those_after_it():
    names = {name for stage in STAGES.values() for name in stage.ingredients}
    before = stage_keys(dict.fromkeys(names, 0))
    assert set(before) == set(STAGES)
    for name in names:
        after = stage_keys(dict.fromkeys(names, 0) | {name: 1})
        wanted = {kind for kind, stage in STAGES.items() if name in stage.ingredients}
        for kind, stage in STAGES.items():
            wanted |= {kind} if wanted & set(stage.after) else set()
        assert {kind for kind in STAGES if before[kind] != after[kind]} == wanted


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"alpha": 0.5}, {"readout"}),
        ({"coefficient": 2}, {"branches", "readout"}),
        ({"k": 3}, {"directions", "branches", "readout"}),
        # A budget finds the coefficient itself.
        ({"kl_budget": 0.1, "coefficient": 2}, {"directions", "branches", "readout"}),
        ({"contrast": "anchor"}, {"directions", "branches", "readout"}),
        ({"contrast": "options"}, {"feedback", "directions", "branches", "readout"}),
        ({"positions": "all"}, {"prefix", "directions", "branches", "readout"}),
        ({"seed": 1}, set(STAGES)),
        ({"block": 10}, set(STAGES)),
    ],
)
def test_points_share_stages_whose_settings_agree(changed, kinds):
    before, after = keys_by_settings(point_config({})), keys_by_settings(point_config(changed))
    assert {kind for kind in STAGES if before[kind] != after[kind]} == kinds


def test_a_coefficient_beside_a_budget_changes_nothing():
    one, two = ({"kl_budget": 0.1, "coefficient": c} for c in (1, 2))
    assert keys_by_settings(point_config(one))["branches"] != keys_by_settings(point_config({}))
    keys = [keys_by_settings(point_config(values))["branches"] for values in (one, two)]
    assert keys[0] == keys[1]
