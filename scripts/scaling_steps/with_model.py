"""What the commands do, on a tiny random model and dictionaries of any width."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from tiny import D_MODEL, SITE, save_tiny_model

import saepd
from saepd.directions.edits import EditLatents
from saepd.fit.config import LearningConfig
from saepd.sweeps.backends.schedule import units_of
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.run import check_points
from saepd.sweeps.space.plan import plan_sweep
from saepd.sweeps.space.points import sweep_points
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING
from scaling_steps.step import Prepared, Step
from scaling_steps.without_model import items, write_items

_WIDTH = 64
# Every latent may be chosen: what is measured must not depend on which of them fire.
_FIT = saepd.FitConfig(features=saepd.FeatureConfig(k=8, min_stability=0.0, max_density=1.0))
# A null, the model alone, prompts with examples, and a fitted readout; fitting has its own steps.
_METHODS = ("train-mean", "zero-shot", "few-shot", "position-bias")
_TEXT = saepd.SamplingConfig(max_new_tokens=8)


@cache
def model() -> Any:
    """A Llama of four blocks with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        return saepd.load_model(save_tiny_model("llama", Path(folder) / "tiny"), device="cpu")


@cache
def dictionary(width: int = _WIDTH) -> StandardSAE:
    """An SAE of random directions of norm 1, of which about half fire at a token."""
    metadata = SAEMetadata(model_name="tiny", hook_name=SITE)
    sae = StandardSAE(StandardSAEConfig(d_in=D_MODEL, d_sae=width, metadata=metadata))
    rows = torch.randn(width, D_MODEL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.W_dec.copy_(rows / rows.norm(dim=-1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.T)
    return sae.eval().requires_grad_(False)


def feedback(n_rows: int, n_perspectives: int = 2) -> list[saepd.Feedback]:
    """Rows in which everybody answers a question of their own, as if by the toss of a coin."""
    return [
        saepd.Feedback(
            id=f"r{i}",
            perspective=f"group {i % n_perspectives}",
            prompt=f"Is plan {i} good?",
            options=("Yes", "No"),
            answer=("Yes", "No")[i * i // 3 % 2],
        )
        for i in range(n_rows)
    ]


def directions(n: int, n_latents: int = 4) -> list[saepd.Direction]:
    """Directions that each write a few latents."""
    sae = dictionary(max(_WIDTH, n_latents))
    values = torch.linspace(0.1, 1, n_latents)
    latents = torch.arange(n_latents)
    return [
        saepd.Direction(f"group {i}", SITE, EditLatents(sae, latents, (1 + i % 7) * values))
        for i in range(n)
    ]


def _fit(n_rows: int, n_perspectives: int, width: int = _WIDTH) -> Prepared:
    sae, rows = dictionary(width), feedback(n_rows, n_perspectives)
    return lambda: saepd.fit_directions(model(), sae, rows, _FIT)


def _learn(n_rows: int, n_perspectives: int) -> Prepared:
    rows = feedback(n_rows, n_perspectives)
    # The widest choice is the slowest, and no other would tell more.
    one = LearningConfig(
        n_latents=8, shared=(1.0,), own=(1.0,), biases=(0.01,), own_readout=(0.1,), n_folds=2
    )
    return lambda: saepd.learn_directions(model(), dictionary(), rows, learning=one)


def _read(n_items: int, n_directions: int) -> Prepared:
    asked, steered = items(n_items), directions(n_directions)
    return lambda: saepd.read_options(model(), asked, steered)


def _write(n_prompts: int, n_directions: int) -> Prepared:
    prompts, steered = [f"Plan {i} is" for i in range(n_prompts)], directions(n_directions)
    return lambda: saepd.generate_batch(model(), prompts, steered, sampling=_TEXT)


def _triage(n_items: int) -> Prepared:
    asked, steered = items(n_items), directions(2)
    return lambda: saepd.triage_items(saepd.assess(model(), asked, steered))


def _evaluate(n_items: int, n_draws: int, folder: Path) -> Prepared:
    task = saepd.Task(
        "scaling",
        tuple(items(n_items)),
        SURVEY_WORDING,
        OPINION_METRICS,
    )
    draw = saepd.DrawConfig(n_feedback=4, draws=n_draws)
    config = saepd.EvaluationConfig(draw=draw, few_shot_tokens=128)
    return lambda: saepd.evaluate(model(), dictionary(), task, config, folder / "out", _METHODS)


def _keep(n_directions: int, n_latents: int, folder: Path) -> Prepared:
    saved = directions(n_directions, n_latents)
    sae = dictionary(max(_WIDTH, n_latents))

    def run() -> None:
        saepd.save_to_disk(saved, folder, model())
        saepd.load_from_disk(folder, model(), sae)

    return run


def _plan(n_points: int, folder: Path) -> Prepared:
    write_items(folder / "items.jsonl", 60)
    parameters = {
        "task": {"value": "own"},
        "data": {"value": str(folder / "items.jsonl")},
        "n_feedback": {"value": 5},
        "k": {"values": [1, 2, 4, 8, 16]},
        "coefficient": {"values": [1 + i / n_points for i in range(n_points // 5)]},
    }
    file = folder / "sweep.yaml"
    whole = {"method": "grid", "metric": {"name": "gain"}, "parameters": parameters}
    file.write_text(json.dumps(whole))

    def run() -> None:
        sweep = saepd.load_sweep(file)
        points = sweep_points(sweep)
        check_points(sweep, points)
        plan_sweep(points, ())
        units_of(points)

    return run


def _results(n_points: int, folder: Path) -> Prepared:
    store = ResultStore(folder)
    outcomes = [
        PointOutcome(str(i), {"coefficient": i}, {"metrics": {}, "seconds": 1.0})
        for i in range(n_points)
    ]

    def run() -> None:
        for outcome in outcomes:
            store.add(outcome)
        store.outcomes()

    return run


STEPS: dict[str, Step] = {
    "fit": Step("rows", 20, lambda n, _: _fit(n, 2), tensors=True),
    "fit, many perspectives": Step("perspectives", 2, lambda n, _: _fit(10 * n, n), tensors=True),
    "fit, wide dictionary": Step("latents", 64, lambda n, _: _fit(40, 2, n), tensors=True),
    "learn": Step("rows", 20, lambda n, _: _learn(n, 2), tensors=True),
    "learn, many perspectives": Step(
        "perspectives", 2, lambda n, _: _learn(10 * n, n), tensors=True
    ),
    "answer": Step("items", 5, lambda n, _: _read(n, 2), tensors=True),
    "answer, many branches": Step("directions", 2, lambda n, _: _read(5, n), tensors=True),
    "generate": Step("prompts", 2, lambda n, _: _write(n, 2), tensors=True),
    "generate, many branches": Step("directions", 2, lambda n, _: _write(2, n), tensors=True),
    "triage": Step("items", 3, lambda n, _: _triage(n), tensors=True),
    "evaluate": Step("items", 10, lambda n, path: _evaluate(n, 1, path), tensors=True),
    "evaluate, many draws": Step(
        "draws", 1, lambda n, path: _evaluate(10, n, path), (1, 10), tensors=True
    ),
    "plan a sweep": Step("points", 50, _plan),
    "keep a sweep's results": Step("points", 10, _results),
    "save and load directions": Step("directions", 2, lambda n, path: _keep(n, 4, path)),
    "save and load wide directions": Step(
        "latents", 64, lambda n, path: _keep(2, n, path), tensors=True
    ),
}
