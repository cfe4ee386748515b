"""Measure how near ten answers bring a new country whose nine neighbours are known.

    python scripts/new_voice.py --data DATA/globalopinionqa.json

For each country that is left out, `saepd.learn_directions` learns the nine others from 50 answers
each, and `saepd.learn_voice` mixes them into the tenth from 5, 10 and 20 answers of its own; beside
that stands what `saepd.learn_directions` learns from the country's own 50, and the even mixture.
Writes artifacts/results/new_voice.json and .md. Countries that are done are kept in out/new_voice,
so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

import saepd
from saepd.common.files import write_atomically, write_json
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import Draw, make_draws
from saepd.metrics.distances import js_distance
from saepd.metrics.intervals import draw_weights, interval
from saepd.metrics.weighted import mean
from saepd.tasks.loading import load_task
from saepd.tasks.task import Task

ROOT = Path(__file__).parents[1]
BLOCK = 20
N_COUNTRIES = 10
N_TEST = 60
FEW = (5, 10, 20)
OWN = "its own 50 answers"
EVEN = "the nine others, evenly"
UNSTEERED = "no steering, readout of its own 50 answers"
# Dense vectors without gates, which mix.
LEARNING = saepd.LearningConfig(n_latents=0, gate="never")


def measure(model: Any, sae: Any, task: Task, draw: Draw, country: str) -> dict[str, Any]:
    """Distances to the country's answers to each test question, for every way to its voice."""
    own_rows = [row for row in draw.feedback if row.perspective == country]
    others = [row for row in draw.feedback if row.perspective != country]
    config = saepd.FitConfig(readout=saepd.ReadoutConfig(template=task.wording.plain))
    known = saepd.learn_directions(model, sae, others, config, LEARNING).directions
    alone = saepd.learn_directions(model, sae, own_rows, config, LEARNING)
    voices = {}
    for n in FEW:
        voice = saepd.learn_voice(model, known, own_rows[:n])
        voices[f"mixture, {n} answers"] = voice.direction
        print(f"{country}, {n} answers: {voice!r}", flush=True)
    items = [task.by_id[id_] for id_ in draw.test if country in task.by_id[id_].distributions]
    distances: dict[str, list[float]] = {name: [] for name in (UNSTEERED, OWN, *voices, EVEN)}
    read_alone = saepd.read_options(model, items, alone.directions)
    read_known = saepd.read_options(model, items, [*voices.values(), *known])
    for item, one, others_say in zip(items, read_alone, read_known, strict=True):
        rows = others_say.log_probs()[1:].double().numpy()
        answers: dict[str, Any] = dict(
            zip((UNSTEERED, OWN), one.log_probs().double().exp().numpy(), strict=True)
        )
        answers |= dict(zip(voices, np.exp(rows[: len(voices)]), strict=True))
        answers[EVEN] = softmax(rows[len(voices) :].mean(0))
        for name, answer in answers.items():
            distances[name].append(
                float(js_distance([answer], [np.array(item.distributions[country])])[0])
            )
    return {"items": [item.id for item in items], "distances": distances}


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean distance of each way, and its difference to the country's own fit, with intervals."""
    questions = [id_ for one in measured for id_ in one["items"]]
    weights = draw_weights(questions, seed=0)
    distances = {
        name: np.array([x for one in measured for x in one["distances"][name]])
        for name in measured[0]["distances"]
    }
    return {
        name: {
            "js_distance": interval(mean(of_way, weights)),
            "minus_own_fit": interval(mean(of_way - distances[OWN], weights)),
        }
        for name, of_way in distances.items()
    }


def table(ways: dict[str, Any]) -> str:
    """What was measured, as a table of Markdown."""
    lines = ["| the new country's answers | JS distance | minus its own fit with 50 answers |"]
    lines.append("| --- | --- | --- |")
    for name, way in ways.items():
        cells = []
        for key, sign in (("js_distance", ""), ("minus_own_fit", "+")):
            at, low, high = way[key]
            cells.append(f"{at:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]")
        lines.append(f"| {name} | {cells[0]} | {'' if name == OWN else cells[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure some countries, one draw each, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "new_voice")
    parser.add_argument("--countries", type=int, default=4, help="how many are left out in turn")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    task = load_task("globalopinionqa", options.data, N_COUNTRIES)
    model = saepd.load_model()
    sae = saepd.load_sae(BLOCK, model=model)
    measured = {}
    for number, country in enumerate(task.perspectives[: options.countries]):
        path = options.out / f"{number}.json"
        if not path.exists():
            config = DrawConfig(draws=1, seed=number, limit=N_TEST, feedback_kind="distribution")
            [draw] = make_draws(task, config)
            write_json(path, measure(model, sae, task, draw, country))
        measured[country] = json.loads(path.read_text())
    record = {
        "countries": list(measured),
        "block": BLOCK,
        "all": summary(list(measured.values())),
        "by_country": {country: summary([one]) for country, one in measured.items()},
    }
    target = ROOT / "artifacts" / "results"
    write_json(target / "new_voice.json", record)
    write_atomically(target / "new_voice.md", table(record["all"]).encode())
    print(table(record["all"]))


if __name__ == "__main__":
    main()
