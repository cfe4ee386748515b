"""Measure whether vectors that are written at several sites answer nearer to people than at one.

    python scripts/several_sites.py --data DATA/globalopinionqa.json

For each draw of feedback of ten countries, `saepd.learn_directions` learns dense vectors at one
site, and dense vectors at three sites together; both are held against the same questions' answers,
which neither has seen, beside the readout without steering that the feedback itself supports.
Writes artifacts/results/several_sites.json and .md. Directions that are learned are kept in
out/several_sites, from where they are read, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import saepd
from saepd.common.files import write_atomically, write_json
from saepd.directions.lineage import read_lineage
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import Draw, make_draws
from saepd.fit.gauss_newton import linear_rows
from saepd.fit.learn import LearnedFit
from saepd.fit.penalised import fit_readouts, written
from saepd.metrics.distances import js_distance
from saepd.metrics.intervals import draw_weights, interval
from saepd.metrics.weighted import mean
from saepd.tasks.loading import load_task
from saepd.tasks.task import Task

ROOT = Path(__file__).parents[1]
BLOCKS = (10, 15, 20)
ONE, SEVERAL = "dense vector, block 20", "dense vectors, blocks 10, 15 and 20"
UNSTEERED = "no steering, fitted readout"
KINDS = ("distribution", "answer")
FOLDERS = {ONE: "one-site", SEVERAL: "several-sites"}
# Few latents cannot serve three sites as well as one; without gates, the sites alone differ.
LEARNING = saepd.LearningConfig(n_latents=0, gate="never", sites="all")
N_COUNTRIES = 10
N_TEST = 60


def without_steering(fit: LearnedFit) -> list[saepd.Direction]:
    """Directions that write nothing, with the readouts that the same feedback supports alone."""
    learned = fit.learned
    plain = written(linear_rows(learned.asked, learned.around))
    readouts = fit_readouts(plain, learned.ridge)
    directions = []
    for direction in fit.directions:
        assert direction.readout is not None
        readout = replace(direction.readout, own=readouts[direction.perspective].readout)
        directions.append(replace(direction, coefficient=0.0, gate=None, readout=readout))
    return directions


def learned(
    model: Any, saes: Sequence[Any], task: Task, draw: Draw, folder: Path
) -> dict[str, list[saepd.Direction]]:
    """The directions of a draw, by name of the sites, from the folder once they are learned."""
    config = saepd.FitConfig(readout=saepd.ReadoutConfig(template=task.wording.plain))
    directions = {}
    for name, chosen in ((ONE, saes[-1:]), (SEVERAL, saes)):
        place = folder / FOLDERS[name]
        if not (place / "steering.json").exists():
            start = time.perf_counter()
            fit = saepd.learn_directions(model, chosen, draw.feedback, config, LEARNING)
            verdict = {**fit.verdict.as_json(), "seconds": time.perf_counter() - start}
            if name == ONE:
                saepd.save_to_disk(without_steering(fit), folder / "unsteered", model)
            saepd.save_to_disk(fit.directions, place, model, verdict)
        directions[name] = saepd.load_from_disk(place, model, saes)
    return {UNSTEERED: saepd.load_from_disk(folder / "unsteered", model, saes), **directions}


def measure(model: Any, task: Task, draw: Draw, ways: Mapping[str, Any]) -> dict[str, Any]:
    """Distances to each country's answers to each test question, for every way to answer."""
    distances: dict[str, list[float]] = {}
    items = [task.by_id[id_] for id_ in draw.test]
    asked = [(item, name) for item in items for name in item.distributions]
    for way, directions in ways.items():
        index = {direction.perspective: i for i, direction in enumerate(directions, 1)}
        read = dict(zip(draw.test, saepd.read_options(model, items, directions), strict=True))
        distances[way] = [
            float(js_distance([p], [np.array(item.distributions[name])])[0])
            for item, name in asked
            if name in index
            for p in [read[item.id].log_probs()[index[name]].double().exp().numpy()]
        ]
    return {
        "questions": [item.id for item, name in asked if name in task.perspectives],
        "distances": distances,
    }


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean distance of each way, and its differences to the others, with intervals."""
    weights = draw_weights([id_ for one in measured for id_ in one["questions"]], seed=0)
    distances = {
        name: np.array([x for one in measured for x in one["distances"][name]])
        for name in (UNSTEERED, ONE, SEVERAL)
    }
    return {
        name: {
            "js_distance": interval(mean(of_way, weights)),
            "minus_unsteered": interval(mean(of_way - distances[UNSTEERED], weights)),
            "minus_one_site": interval(mean(of_way - distances[ONE], weights)),
            "of_unsteered": float(of_way.mean() / distances[UNSTEERED].mean()),
        }
        for name, of_way in distances.items()
    }


def table(record: Mapping[str, Any]) -> str:
    """What was measured, as a table of Markdown."""
    lines = ["| feedback | what is written | JS distance | of no steering | minus no steering |"]
    lines[0] += " minus one site |"
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        for name, way in record.get(kind, {}).items():
            cells = []
            for key, sign in (
                ("js_distance", ""),
                ("minus_unsteered", "+"),
                ("minus_one_site", "+"),
            ):
                at, low, high = way[key]
                cells.append(f"{at:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]")
            if name == UNSTEERED:
                cells[1] = cells[2] = ""
            if name == ONE:
                cells[2] = ""
            share = f"{way['of_unsteered']:.3f}"
            lines.append(f"| {kind}s | {name} | {cells[0]} | {share} | {cells[1]} | {cells[2]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure some draws of each kind of feedback, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "several_sites")
    parser.add_argument("--draws", type=int, default=3, help="how many draws of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    task = load_task("globalopinionqa", options.data, N_COUNTRIES)
    model = saepd.load_model()
    saes = [saepd.load_sae(block, model=model) for block in BLOCKS]
    record: dict[str, Any] = {"model": str(model.cfg.model_name), "draws": options.draws}
    for kind in options.kinds:
        measured, verdicts = [], []
        for seed in range(options.draws):
            folder = options.out / f"{kind}-{seed}"
            config = DrawConfig(draws=1, seed=seed, limit=N_TEST, feedback_kind=kind)
            [draw] = make_draws(task, config)
            ways = learned(model, saes, task, draw, folder)
            path = folder / "distances.json"
            if not path.exists():
                write_json(path, measure(model, task, draw, ways))
            measured.append(json.loads(path.read_text()))
            lineages = {way: read_lineage(folder / FOLDERS[way]) for way in (ONE, SEVERAL)}
            verdicts.append({way: lineage.verdict for way, lineage in lineages.items()})
            print(
                kind,
                seed,
                {way: verdict["sentence"] for way, verdict in verdicts[-1].items()},
                flush=True,
            )
        record[kind] = summary(measured)
        record[f"verdicts, {kind}"] = verdicts
    target = ROOT / "artifacts" / "results"
    write_json(target / "several_sites.json", record)
    write_atomically(target / "several_sites.md", table(record).encode())
    print(table(record))


if __name__ == "__main__":
    main()
