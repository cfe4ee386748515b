"""Folders of results as commands leave them, whose texts would run if a page took them for more."""

import json

import pandas as pd
import torch
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.saving import save_to_disk
from saepd.sweeps.point.identity import point_content
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.space.points import numbered


def write_fit(folder, model, sae, hostile):
    """Three directions, one of a hostile name, with a verdict."""
    directions = [
        Direction(hostile, SITE, EditLatents(sae, [3, 7], [1.0, -4.0]), lineage={"n": 5}),
        Direction("b", SITE, EditLatents(sae, [7, 9], [2.0, 0.5]), coefficient=2.0),
        Direction("dense", SITE, AddVector(torch.ones(D_MODEL))),
    ]
    verdict = {"sentence": f"Worth it. {hostile}", "of_each": [{"perspective": "b", "gain": 0.25}]}
    save_to_disk(directions, folder, model, verdict)
    return folder


def evaluation_row(method, null, perspective, value):
    """A method's row of an evaluation's summary."""
    return {
        "method": method,
        "title": f"{method} title",
        "null": null,
        "perspective": perspective,
        "js_distance": value,
        "js_ci": [value - 0.1, value + 0.1],
        "js_minus_best_null": None if null else [-0.1, -0.2, -0.05],
    }


def write_evaluation(folder, hostile, left="left"):
    """Two methods on six hostile questions, asked of two perspectives."""
    names = ("all", left, "right")
    methods = (("ours", False, 0.2), ("base", True, 0.3))
    rows = [evaluation_row(id_, null, p, value) for id_, null, value in methods for p in names]
    summary = {
        "rows": rows,
        "methods": {"ours": "what we do", "base": "what is there"},
        "config": {"task": "mine", "perspectives": [left, "right"], "version of torch": "9.9"},
        "n_test_items": [6],
        "left_out": {"too short": 3},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    items = [
        {"id": f"q{i}", "prompt": f"Question {i} {hostile}", "options": ["Yes", "No"]}
        for i in range(6)
    ]
    (folder / "items.json").write_text(json.dumps(items))
    frame = pd.DataFrame(
        [
            {
                "draw": 0,
                "method": method,
                "item": f"q{i}",
                "perspective": name,
                "probabilities": [0.1 + 0.1 * i, 0.9 - 0.1 * i],
                "readable": True,
                "gold": [0.15, 0.85],
            }
            for method in ("ours", "base")
            for i in range(6)
            for name in (left, "right")
        ]
    )
    frame.to_parquet(folder / "predictions.parquet")
    return folder


def write_sweep(folder, hostile):
    """Three points that ran, and one whose failure is told in hostile words."""
    store = ResultStore(folder)
    gains = {1.0: 0.01, 2.0: 0.05, 4.0: 0.03}
    points = numbered([{"coefficient": c, "k": 8} for c in (*gains, 8.0)])
    for point in points:
        flat = point.config.flat()
        content = {"content": point_content(point.config)}
        if flat["coefficient"] not in gains:
            store.add(PointOutcome("bad", flat, {"error": hostile, **content}, failed=True))
            continue
        gain = gains[flat["coefficient"]]
        result = {
            "metrics": {"gain": gain, "kl_to_base": 0.1 * flat["coefficient"]},
            "intervals": {"gain": [gain - 0.02, gain + 0.02]},
            **content,
        }
        store.add(PointOutcome(point.key, flat, result))
    return folder


def write_triage(folder, hostile, left="left"):
    """Seven hostile questions, the first of which needs a person most."""
    listed = [
        {
            "rank": i + 1,
            "id": f"q{i}",
            "prompt": f"Question {i} {hostile}",
            "options": ["Yes", "No"],
            "need": 1 - 0.1 * i,
            "reasons": ["model unsure"],
            "why": f"model unsure {hostile}",
            "of_reason": {"model unsure": 0.5, "easily swayed": None},
            "scores": {"entropy": 0.6},
            "flip": {left: None},
            "answers": ["Yes", "No"],
            "branches": {"base": [0.5, 0.5], left: [None, None]},
            "mass": {"base": 0.1},
            "warning": "",
        }
        for i in range(7)
    ]
    text = "".join(json.dumps(one) + "\n" for one in listed)
    (folder / "triage.jsonl").write_text(text)
    return folder
