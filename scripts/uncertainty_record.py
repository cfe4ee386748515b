"""Measure on tasks what the model's uncertainty is worth, and write the tables of the record.

    python scripts/uncertainty_record.py --data DATA

Writes artifacts/results/uncertainty: summary.json with every number, tables and pictures made from
the same numbers, and record.json with the command, versions, hardware and times. Each finished task
is kept in out/uncertainty, so a run that was stopped goes on; delete that folder to start anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from uncertainty_study.assessed import BASE, RANDOM, TEMPERATURE, TEMPERED, assess_fold
from uncertainty_study.overconfidence import MEASURES
from uncertainty_study.triage_simulation import SHARES, error_curve
from uncertainty_study.uncertainty_on_task import TRIAGE, Loss, Measured, measure
from uncertainty_study.usefulness import RISKS

from saepd.common.files import write_atomically, write_json
from saepd.evaluation.config import DrawConfig
from saepd.evaluation.fold import fold_of, make_draws
from saepd.evaluation.item_cache import ItemCache
from saepd.metrics.selective import risk_coverage_curve
from saepd.models.load import load_model
from saepd.pages.curves import Curve, curves_figure, reliability_figure
from saepd.saes.load import load_sae
from saepd.tasks.loading import load_task
from saepd.uncertainty.asking_again import iterate_over_options

ROOT = Path(__file__).parents[1]
SEED = 0
# The step that is no task, and how many survey questions the cost of iterative prompting
# is measured on.
PROMPTING = "prompting"
N_TIMED = 200


@dataclass(frozen=True)
class Plan:
    """One task of the record.

    Attributes:
        task: Its name.
        data: Its file or folder.
        draws: Of feedback and test items.
        loss: What counts in the simulation of triage.
        perspectives: Most perspectives that steer; those with most items.
        held_out: Who is asked in that simulation and gives no feedback; see `measure`.
    """

    task: str
    data: str
    draws: DrawConfig
    loss: Loss
    perspectives: int = 5
    held_out: str = ""


TASKS = {
    "GlobalOpinionQA": Plan(
        "globalopinionqa",
        "globalopinionqa.json",
        DrawConfig(n_feedback=30, draws=1, feedback_kind="distribution", test_share=0.4),
        "total variation",
        perspectives=4,
    ),
    "HS-Brexit": Plan(
        "hs-brexit-annotators",
        ".",
        DrawConfig(n_feedback=30, draws=1, limit=100),
        "error",
        held_out="Ann6",
    ),
    "LIAR": Plan("liar", ".", DrawConfig(draws=1, limit=80), "error"),
    "HateCheck": Plan("hatecheck", "hatecheck.csv", DrawConfig(draws=1, limit=120), "error"),
}


def run(plan: Plan, model: Any, sae: Any, data: Path) -> Measured:
    """Assess a task's test items, and measure what that is worth."""
    people = load_task(plan.task, data / plan.data)
    steering = [name for name in people.perspectives if name != plan.held_out]
    task = people.only(steering[: plan.perspectives])
    draws = make_draws(task, plan.draws)
    tests = dict.fromkeys(id_ for draw in draws for id_ in draw.test)
    needed = [*tests, *(row.item for draw in draws for row in draw.feedback)]
    cache = ItemCache(model, sae, task, list(dict.fromkeys(needed)), list(tests))
    folds = [fold_of(draw, task, cache, few_shot_tokens=512) for draw in draws]
    return measure(
        [(fold, assess_fold(fold)) for fold in folds], people, plan.held_out, plan.loss, SEED
    )


def kept_results(path: Path, measured: Measured | None = None) -> Measured:
    """A task's results as they are kept in a file; written first if they are given."""
    if measured is not None:
        # No number is NaN but where a score is undefined.
        text = json.dumps(asdict(measured), default=lambda array: array.tolist())
        write_atomically(path, text.encode())
    fields = json.loads(path.read_text())
    for name in ("wrong", "unasked", "asked"):
        fields[name] = np.array(fields[name])
    for name in ("scores", "orders"):
        fields[name] = {key: np.array(values) for key, values in fields[name].items()}
    fields["answers"] = {
        name: [np.array(p) for p in answers] for name, answers in fields["answers"].items()
    }
    return Measured(**fields)


def time_iterative_prompting(model: Any, data: Path) -> dict[str, Any]:
    """How long it takes to ask survey questions 1 + n_options times."""
    items = load_task("globalopinionqa", data / "globalopinionqa.json").items[:N_TIMED]
    began = time.perf_counter()
    iterate_over_options(model, items)
    n_prompts = sum(1 + len(item.options) for item in items)
    seconds = round(time.perf_counter() - began, 1)
    return {"n_items": len(items), "n_prompts": n_prompts, "seconds": seconds}


def calibration_table(summaries: dict[str, Any]) -> str:
    """Each task's base, merges and nulls: confidence against accuracy."""
    rows = [["task", "answer", *(name.replace("_", " ") for name in MEASURES)]]
    for task, summary in summaries.items():
        for row in summary["calibration"]:
            rows.append([task, row["method"], *(_interval(row[name]) for name in MEASURES)])
    return _markdown(rows)


def claims_table(summaries: dict[str, Any]) -> str:
    """The claim against its nulls: differences, below 0 in favour of the first."""
    rows = [["task", "answer", "minus", "overconfidence", "ECE", "NLL"]]
    for task, summary in summaries.items():
        for row in summary["calibration"]:
            if row["method"] not in ("pluralistic", f"pluralistic{TEMPERED}"):
                continue
            for other, of_each in row["minus"].items():
                cells = [_signed(of_each[name]) for name in ("overconfidence", "ece", "nll")]
                rows.append([task, row["method"], other, *cells])
    return _markdown(rows)


def scores_table(summaries: dict[str, Any]) -> str:
    """What each score is good for."""
    risks = [f"coverage_at_{risk:.0%}" for risk in RISKS]
    kinds = {"auroc_error": "AUROC error", "auroc_divided": "AUROC divided"}
    kinds |= {"auroc_groups_differ": "AUROC groups differ", "aurc": "AURC"}
    kinds |= {"aurc_minus_random": "AURC minus random"}
    kinds |= {name: name.replace("_", " ") for name in risks}
    rows = [["task", "score", *kinds.values()]]
    for task, summary in summaries.items():
        for row in summary["scores"]:
            cells = [
                (_signed if name == "aurc_minus_random" else _interval)(row.get(name))
                for name in kinds
            ]
            rows.append([task, row["score"], *cells])
    return _markdown(rows)


def triage_table(summaries: dict[str, Any]) -> str:
    """The error that is left after some of the questions, and what an order saves over random."""
    shares = [f"error_at_{share:.0%}" for share in SHARES]
    rows = [["task", "order", *(f"asked {share:.0%}" for share in SHARES), "saved over random"]]
    for task, summary in summaries.items():
        for row in summary["triage"]:
            cells = [f"{row[name]:.3f}" for name in shares]
            rows.append([task, row["order"], *cells, _signed(row["saved_over_random"])])
    return _markdown(rows)


def pictures(measured: dict[str, Measured]) -> dict[str, Any]:
    """Name -> figure."""
    shown = (BASE, TEMPERATURE, "pluralistic", "mixture", f"pluralistic{RANDOM}")
    reliability = {
        task: ({name: of_task.answers[name] for name in shown}, of_task.labels)
        for task, of_task in measured.items()
    }
    scores = ("least_confidence_scaled", "branch_disagreement", "sway", "epistemic", TRIAGE)
    coverage: dict[str, list[Curve]] = {}
    cost: dict[str, list[Curve]] = {}
    for task, of_task in measured.items():
        coverage[task], cost[task] = [], []
        for name in scores:
            curve = risk_coverage_curve(of_task.scores[name], of_task.wrong)
            coverage[task].append(Curve(name.replace("_", " "), curve.coverage, curve.risk))
        for name in (TRIAGE, "random"):
            values = of_task.orders[TRIAGE] if name == TRIAGE else np.zeros(len(of_task.asked))
            left = error_curve(values, of_task.unasked, of_task.asked)
            cost[task].append(Curve(name, np.linspace(0, 1, len(left)), left))
    return {
        "reliability": reliability_figure(reliability, n_bins=5),
        "risk_coverage": curves_figure(coverage, "coverage", "share of wrong answers"),
        "triage": curves_figure(cost, "share of items asked about", "loss that is left"),
    }


def main() -> None:
    """Run every task, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts/results/uncertainty")
    parser.add_argument("--work", type=Path, default=ROOT / "out/uncertainty")
    parser.add_argument("--block", type=int, default=15, help="of the shipped SAE")
    parser.add_argument("tasks", nargs="*", default=[*TASKS, PROMPTING], metavar="task")
    options = parser.parse_args()
    steps = (*TASKS, PROMPTING)
    for name in options.tasks:
        if name not in steps:
            parser.error(f"no task of the record is called {name}: there are {', '.join(TASKS)}")
    model = load_model()
    sae = load_sae(options.block, model=model)
    for name in [name for name in options.tasks if name in TASKS]:
        path = options.work / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            of_task = run(TASKS[name], model, sae, options.data)
            of_task.summary["seconds"] = round(time.perf_counter() - began, 1)
            kept_results(path, of_task)
            print(f"{name}: {of_task.summary['seconds']} seconds", flush=True)
    timed = options.work / "iterative_prompting.json"
    if PROMPTING in options.tasks and not timed.exists():
        write_json(timed, time_iterative_prompting(model, options.data))
    paths = {name: options.work / f"{name}.json" for name in TASKS}
    if not all(path.exists() for path in (*paths.values(), timed)):
        print("some tasks are missing: the tables are written once all of them have run")
        return
    measured = {name: kept_results(path) for name, path in paths.items()}
    prompting = json.loads(timed.read_text())
    summaries = {name: of_task.summary for name, of_task in measured.items()}
    tables = {
        "calibration": calibration_table(summaries),
        "claims": claims_table(summaries),
        "scores": scores_table(summaries),
        "triage": triage_table(summaries),
    }
    for name, table in tables.items():
        write_atomically(options.out / f"{name}.md", table.encode())
    packages = ("saepd", "torch", "transformers", "transformer-lens", "sae-lens", "numpy", "scipy")
    record = {
        "command": "python scripts/uncertainty_record.py --data DATA",
        "block": options.block,
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        "seconds": {name: of_task.summary.pop("seconds") for name, of_task in measured.items()},
        "iterative_prompting": prompting,
    }
    write_json(options.out / "summary.json", summaries)
    write_json(options.out / "record.json", record)
    # Last, since what draws them is a browser.
    for name, figure in pictures(measured).items():
        figure.write_image(options.out / f"{name}.png", scale=2)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _interval(value: Sequence[float] | None) -> str:
    return "" if value is None else "{:.3f} [{:.3f}, {:.3f}]".format(*value)


def _signed(value: Sequence[float] | None) -> str:
    return "" if value is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*value)


if __name__ == "__main__":
    main()
