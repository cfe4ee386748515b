"""Measure how few directions, and out of which dictionary, come near a learned dense vector.

    python scripts/dictionaries.py --data DATA/globalopinionqa.json

For each draw of feedback of ten countries, `saepd.learn_directions` learns dense vectors at block
20. Each is then made up of few directions in the way that `saepd fit` does it, out of several
dictionaries: the SAE's latents, more of them, those of three blocks' SAEs together, which all write
into the same stream, and as many and four times as many random directions. All run on questions
that nothing was learned from. Writes artifacts/results/dictionaries.json and .md. Draws that are
done are kept in out/dictionaries, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from several_sites import N_COUNTRIES, N_TEST, UNSTEERED, measure, without_steering

import saepd
from saepd.common.files import write_atomically, write_json
from saepd.directions.edits import AddVector
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import Draw, make_draws
from saepd.fit.gauss_newton import linear_rows
from saepd.fit.learn import unit_rows
from saepd.fit.penalised import Part, effect_size
from saepd.fit.sparse import Dictionary, Sparse, curvature, in_latents, in_these
from saepd.metrics.intervals import draw_weights, interval
from saepd.metrics.weighted import mean
from saepd.tasks.loading import load_task
from saepd.tasks.task import Task

ROOT = Path(__file__).parents[1]
BLOCK = 20
OTHER_BLOCKS = (10, 15)
N = 64
LEARNING = saepd.LearningConfig(n_latents=0, gate="never")
DENSE = "dense vector"


def random_directions(n: int, width: int) -> Dictionary:
    """Directions of norm 1 that no model and no text has shaped."""
    drawn = np.random.default_rng(0).normal(size=(n, width))
    return Dictionary((drawn / np.linalg.norm(drawn, axis=1, keepdims=True),))


def of_draw(model: Any, saes: Sequence[Any], task: Task, draw: Draw) -> dict[str, Any]:
    """Distances of every way to answer, and how much of the dense vectors each leaves out."""
    readout = saepd.ReadoutConfig(template=task.wording.plain)
    config = saepd.FitConfig(readout=readout)
    fit = saepd.learn_directions(model, saes[0], draw.feedback, config, LEARNING)
    learned, dense = fit.learned, fit.learned.solutions["vector"]
    rows = linear_rows(learned.asked, learned.around)
    size = effect_size(rows)
    parts = {name: Part(dense.readout[name], vector) for name, vector in dense.vectors.items()}
    metric = curvature(rows, parts, learned.ridge, size)
    vectors = np.stack(list(dense.vectors.values()))
    latents = Dictionary((unit_rows(saes[0]),))
    stream = Dictionary((np.concatenate([unit_rows(sae) for sae in saes]),))
    rng = np.random.default_rng(0)
    any_latents = [rng.permutation(len(latents))[:N] for _ in vectors]
    as_many = random_directions(len(latents), latents.width)
    more = random_directions(4 * len(latents), latents.width)
    chosen: dict[str, tuple[Dictionary, list[Sparse]]] = {
        f"{N} latents": (latents, in_latents(vectors, latents, metric, N)),
        f"{2 * N} latents": (latents, in_latents(vectors, latents, metric, 2 * N)),
        f"{N} latents of three blocks": (stream, in_latents(vectors, stream, metric, N)),
        f"{N} of as many random directions": (as_many, in_latents(vectors, as_many, metric, N)),
        f"{N} of four times as many": (more, in_latents(vectors, more, metric, N)),
        f"{N} latents at random": (latents, in_these(any_latents, vectors, latents, metric)),
    }
    ways, missing = {UNSTEERED: without_steering(fit), DENSE: fit.directions}, {}
    root = np.linalg.cholesky(metric)
    for name, (dictionary, sparse) in chosen.items():
        near = np.stack([one.scales @ dictionary.rows(one.ids) for one in sparse])
        left = np.square((vectors - near) @ root).sum(1) / np.square(vectors @ root).sum(1)
        missing[name] = left.tolist()
        ways[name] = [
            replace(direction, edit=AddVector(vector))
            for direction, vector in zip(fit.directions, near, strict=True)
        ]
    return {**measure(model, task, draw, ways), "missing": missing}


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean distance of each way, its difference to the dense vector, and what it leaves out."""
    weights = draw_weights([id_ for one in measured for id_ in one["questions"]], seed=0)
    distances = {
        name: np.array([x for one in measured for x in one["distances"][name]])
        for name in measured[0]["distances"]
    }
    ways: dict[str, Any] = {}
    for name, of_way in distances.items():
        ways[name] = {
            "js_distance": interval(mean(of_way, weights)),
            "minus_dense": interval(mean(of_way - distances[DENSE], weights)),
        }
        if name in measured[0]["missing"]:
            left = [x for one in measured for x in one["missing"][name]]
            ways[name]["left_out"] = float(np.mean(left))
    return ways


def table(ways: Mapping[str, Any]) -> str:
    """What was measured, as a table of Markdown."""
    lines = ["| what is written | JS distance | minus dense vector | left out on the feedback |"]
    lines.append("| --- | --- | --- | --- |")
    for name, way in ways.items():
        at, low, high = way["js_distance"]
        distance = f"{at:.3f} [{low:.3f}, {high:.3f}]"
        at, low, high = way["minus_dense"]
        minus = "" if name == DENSE else f"{at:+.4f} [{low:+.4f}, {high:+.4f}]"
        left = f"{way['left_out']:.0%}" if "left_out" in way else ""
        lines.append(f"| {name} | {distance} | {minus} | {left} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure some draws, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "dictionaries")
    parser.add_argument("--draws", type=int, default=3, help="how many draws")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    task = load_task("globalopinionqa", options.data, N_COUNTRIES)
    model = saepd.load_model()
    saes = [saepd.load_sae(block, model=model) for block in (BLOCK, *OTHER_BLOCKS)]
    measured = []
    for seed in range(options.draws):
        path = options.out / f"{seed}.json"
        if not path.exists():
            config = DrawConfig(draws=1, seed=seed, limit=N_TEST, feedback_kind="distribution")
            [draw] = make_draws(task, config)
            write_json(path, of_draw(model, saes, task, draw))
        measured.append(json.loads(path.read_text()))
    record = {"model": str(model.cfg.model_name), "draws": options.draws, "ways": summary(measured)}
    target = ROOT / "artifacts" / "results"
    write_json(target / "dictionaries.json", record)
    write_atomically(target / "dictionaries.md", table(record["ways"]).encode())
    print(table(record["ways"]))


if __name__ == "__main__":
    main()
