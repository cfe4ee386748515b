"""``saepd demo``: the whole way from feedback to a plural answer, on real survey answers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from saepd.cli.options import check_folder, load_model_and_sae, print_json, print_table
from saepd.common.progress import progress_bar
from saepd.common.tracking import TrackingConfig, TrackingMode
from saepd.evaluation.config import EvaluationConfig
from saepd.models.choice import ModelConfig

EXAMPLES = """\
  saepd demo --out out/demo
  saepd demo --out out/block_20 --block 20
  saepd demo --out out/demo_seed1 --seed 1 --wandb offline --json"""

# Nulls first, then what steers.
DEMO_METHODS = (
    *("train-mean", "zero-shot", "few-shot", "position-bias-pooled"),
    *("fitted-scales-random-latents", "fitted-dense-vector", "as-fit"),
)

FIRST = ("out", "block", "json", "wandb")


@dataclass(kw_only=True)
class Options:
    """What the demo runs on.

    Attributes:
        out: Folder for table.md, summary.json, results.json and the directions of the first draw.
        json: Print the results as JSON instead of tables.
        wandb: Record the run in W&B: off, offline or online.
    """

    out: Path = Path("out/demo")
    json: bool = False
    wandb: TrackingMode = "off"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Evaluate on the packaged survey, and show the first draw from inside."""
    from saepd.cli.show import show_contexts, show_distributions, stable_sentence
    from saepd.common.files import write_json
    from saepd.common.tracking import track
    from saepd.directions.saving import save_to_disk
    from saepd.evaluation.example import most_divided
    from saepd.evaluation.methods.fitted import as_fit, gates, learned
    from saepd.evaluation.methods.steered import fold_fit
    from saepd.evaluation.results.table import finding, table_cells
    from saepd.evaluation.run import evaluate, first_fold
    from saepd.features.evidence import explain
    from saepd.fit.verdict import verdict
    from saepd.merge.config import MergeConfig
    from saepd.tasks.loading import PACKAGED_TASK, load_task

    began = time.perf_counter()
    check_folder(options.out)
    task, config = load_task(PACKAGED_TASK), options.evaluation
    settings = {"where": asdict(options.where), **asdict(config)}
    with track(TrackingConfig(mode=options.wandb), settings, job_type="demo") as tracker:
        model, sae = load_model_and_sae(options.where)
        with progress_bar("starting") as report:
            fold = first_fold(model, sae, task, config, options.out)
            summary = evaluate(model, sae, task, config, options.out, DEMO_METHODS, report, fold)
            report("features, and one question in full", 0, 1)
            directions, fit = as_fit(fold), fold_fit(fold)
            first_verdict = verdict(model, learned(fold), list(directions.values()), gates(fold))
            example = most_divided(fold, directions, task, MergeConfig())
            evidence = [explain(model, sae, fit.pairs, one, n=3) for one in fit.features]
            report("done", 1, 1)
        folder = options.out / "steering"
        save_to_disk(list(directions.values()), folder, verdict=first_verdict.as_json())
        results = {
            "finding": finding(summary["rows"]),
            "rows": summary["rows"],
            "features": [e.to_dict() for group in evidence for e in group],
            "example": example.to_dict(),
            "verdict": first_verdict.as_json(),
            "config": settings,
            "seconds": round(time.perf_counter() - began, 1),
        }
        write_json(options.out / "results.json", results)
        tracker.log_table("results", summary["rows"])
        tracker.summary(
            {
                f"js_distance/{r['method']}/{r['perspective']}": r["js_distance"]
                for r in summary["rows"]
            }
        )
        tracker.log_steering(options.out / "steering")
    if options.json:
        print_json(results)
        return
    print_table(
        "Distance to what each group answered, questions held out",
        *table_cells(summary["rows"], short=True),
    )
    print(results["finding"])
    print(f"The first draw's own verdict: {first_verdict}")
    show_distributions(
        f"A held-out question: {example.item.prompt}",
        example.item.options,
        {
            **{f"branch: {name}": p for name, p in example.branches.items()},
            "merged (pluralistic)": example.merged,
            **{f"people: {name}": p for name, p in example.item.distributions.items()},
        },
    )
    for group, features in zip(evidence, fit.features, strict=True):
        print(f"Latents that differ most in the feedback, {stable_sentence(features)}")
        show_contexts(group)
    print(f"{results['seconds']} seconds; results in {options.out}")
