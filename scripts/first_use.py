"""Do what a first user does, on tiny random models, and say what came of it.

    python scripts/first_use.py --runs 10 --out artifacts/results/first_use.json

Each run makes a model of other weights, and then fits directions, learns scales, explains latents,
answers, generates, ranks items for people and evaluates, twice where the second must be the same
as the first. Anything but an answer or an `InputError` is a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests")]

from architecture_configs import CONFIGS, tokenizer  # noqa: E402
from tiny import save_random, save_tiny_sae  # noqa: E402

import saepd  # noqa: E402
from saepd.common.files import write_atomically, write_json  # noqa: E402

ARCHITECTURES = ("GPT-2", "Llama", "Qwen 3", "Gemma 3", "Phi-3", "OPT")
WIDTH, SITE = 32, "blocks.1.hook_resid_post"
N_FEEDBACK = 8


def random_model(name: str, seed: int, folder: Path) -> Path:
    """A model of random weights."""
    torch.manual_seed(seed)
    tok = tokenizer()
    return save_random(CONFIGS[name](tok), tok, folder)


def steps(model: Any, sae: Any, seed: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """What a first user does, in order; later steps use what earlier ones made."""
    items = saepd.survey_items()
    feedback = saepd.sample_feedback(saepd.survey_feedback(), N_FEEDBACK, seed)
    config = saepd.FitConfig(features=saepd.FeatureConfig(k=4, min_stability=0.0))
    held: dict[str, Any] = {}

    def fit() -> None:
        held["fit"] = saepd.fit_directions(model, sae, feedback, config)
        saepd.save_to_disk(held["fit"].directions, folder / "steering")
        held["directions"] = saepd.load_from_disk(folder / "steering", model, sae)

    def learn() -> None:
        saepd.learn_directions(model, sae, feedback)

    def features() -> None:
        saepd.overlap(held["fit"].features)
        for chosen in held["fit"].features:
            saepd.explain(model, sae, held["fit"].pairs, chosen, n=2)

    def answer() -> None:
        once, again = (
            saepd.read_options(model, items[:3], held["directions"])[0].log_probs()
            for _ in range(2)
        )
        assert torch.equal(once, again)
        saepd.merge_branches(once, saepd.MergeConfig())
        saepd.branch_disagreement(once)

    def generate() -> None:
        sampling = saepd.SamplingConfig(max_new_tokens=5)
        saepd.generate_batch(
            model, ["Should buses be free?"], held["directions"], sampling=sampling
        )
        with held["directions"][0].apply(model):
            model.original_model.generate(
                torch.tensor([tokenizer()("Is it so?").input_ids]), max_new_tokens=3
            )

    def triage() -> None:
        assessed = saepd.assess(model, items[:6], held["directions"])
        saepd.triage_items(assessed, 3)

    def evaluate() -> None:
        draw = saepd.DrawConfig(n_feedback=N_FEEDBACK, draws=1, limit=4, seed=seed)
        settings = saepd.EvaluationConfig(draw=draw)
        task = saepd.load_task("gss")
        methods = ["uniform", "zero-shot", "position-bias", "fitted-scales", "selected-latents"]
        out = folder / "evaluation"
        once = saepd.evaluate(model, sae, task, settings, out, methods)
        assert once == saepd.evaluate(model, sae, task, settings, out, methods)

    return {
        "fit": fit,
        "learn": learn,
        "features": features,
        "answer": answer,
        "generate": generate,
        "triage": triage,
        "evaluate": evaluate,
    }


def run(name: str, seed: int) -> dict[str, str]:
    """What became of each step of one run: done, refused, or the traceback's last line."""
    came_of: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(work)
        model = saepd.load_model(random_model(name, seed, folder / "model"), device="cpu")
        sae = saepd.load_sae(save_tiny_sae(folder / "sae", d_in=WIDTH, hook_name=SITE), model=model)
        for step, act in steps(model, sae, seed, folder).items():
            try:
                act()
                came_of[step] = "done"
            except saepd.InputError as error:
                came_of[step] = f"refused: {error}"
            except Exception as error:
                traceback.print_exc()
                came_of[step] = f"failed: {type(error).__name__}: {error}"
    return came_of


def table(rows: dict[str, list[dict[str, str]]]) -> str:
    """How often each step was done, refused and failed, per architecture, in Markdown."""
    names = list(next(iter(rows.values()))[0])
    lines = ["| architecture | runs | " + " | ".join(names) + " |", "| --- |" * (len(names) + 2)]
    for architecture, runs in rows.items():
        cells = []
        for step in names:
            counts = Counter(run[step].split(":")[0] for run in runs)
            cells.append(", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
        lines.append(f"| {architecture} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("|| ---", "| ---") + "\n"


def main() -> int:
    """Run all; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts/results/first_use.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in options.only:
        rows[name] = [run(name, seed) for seed in range(options.runs)]
        print(name, Counter(f"{k} {v[:60]}" for r in rows[name] for k, v in r.items()), flush=True)
        write_json(options.out, rows)
    write_atomically(options.out.with_suffix(".md"), table(rows).encode())
    return int(
        any(v.startswith("failed") for runs in rows.values() for r in runs for v in r.values())
    )


if __name__ == "__main__":
    sys.exit(main())
