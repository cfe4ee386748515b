"""``saepd demo``: the whole way from feedback to a plural answer, on real survey answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.options import check_folder, load_model_and_sae, print_json, progress
from saepd.common.tracking import TrackingConfig
from saepd.evaluation.experiment import ExperimentConfig
from saepd.models.choice import ModelConfig

EXAMPLES = """\
  saepd demo --out out/demo
  saepd demo --out out/demo --block 20 --kl-budget 0.5
  saepd demo --out out/demo --seed 1 --wandb offline --json"""


@dataclass
class Options:
    """What the demo runs on.

    Attributes:
        out: Folder for results.json, table.md and the directions of the first fold.
        json: Print the results as JSON instead of tables.
        wandb: Track the run: off, offline or online.
    """

    out: Path = Path("out/demo")
    json: bool = False
    wandb: str = "off"
    where: ModelConfig = field(default_factory=ModelConfig)
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)


def run(options: Options) -> None:
    """Run the demo and write what it found."""
    from saepd.feedback.survey import survey_feedback, survey_items

    began = time.perf_counter()
    items, feedback = survey_items(), list(survey_feedback())
    run_and_report(
        options,
        items,
        feedback,
        title="Distance to what each group answered, questions held out",
        began=began,
    )


def run_and_report(options, items, feedback, *, title: str, began: float) -> None:  # noqa: ANN001
    """Run the experiment on items and feedback; write, track and print the results."""
    from dataclasses import asdict

    from rich.console import Console

    from saepd.cli.show import show_distributions, show_evidence, show_results
    from saepd.common.files import write_atomically, write_json
    from saepd.common.tracking import track
    from saepd.directions.saving import save_to_disk
    from saepd.evaluation.experiment import run_experiment
    from saepd.evaluation.report import evidence_dict, example_dict, markdown_table, result_rows
    from saepd.features.evidence import explain

    check_folder(options.out)
    settings = {"where": asdict(options.where), "experiment": asdict(options.experiment)}
    tracking = TrackingConfig(mode=options.wandb)
    with track(tracking, settings, job_type="experiment") as tracker:
        model, sae = load_model_and_sae(options.where)
        with progress("starting") as report:
            outcome = run_experiment(model, sae, items, feedback, options.experiment, report)
        rows = result_rows(outcome.predictions, options.experiment.seed)
        site = outcome.fit.directions[0].hook_name
        evidence = [
            explain(model, sae, site, outcome.fit.pairs, features)
            for features in outcome.fit.features
        ]
        results = {
            "rows": rows,
            "features": [evidence_dict(e) for group in evidence for e in group],
            "example": example_dict(outcome.example),
            "coefficients": {d.perspective: d.coefficient for d in outcome.fit.directions},
            "n_few_shot_examples": outcome.n_few_shot,
            "warnings": outcome.warnings,
            "config": {**settings, "lineage": outcome.fit.directions[0].lineage},
            "seconds": round(time.perf_counter() - began, 1),
        }
        write_json(options.out / "results.json", results)
        write_atomically(options.out / "table.md", (markdown_table(rows) + "\n").encode())
        save_to_disk(outcome.fit.directions, options.out / "steering")
        tracker.log_table("results", rows)
        tracker.summary(
            {f"js_distance/{r['method']}/{r['perspective']}": r["js_distance"] for r in rows}
        )
        tracker.log_steering(options.out / "steering")
    if options.json:
        print_json(results)
        return
    show_results(rows, title)
    for group in evidence:
        show_evidence(group, f"Features of {group[0].perspective}'s feedback (first fold)")
    example = outcome.example
    show_distributions(
        f"A held-out question: {example.item.prompt}",
        example.item.options,
        {
            **{f"branch: {name}": p for name, p in example.branches.items()},
            "pluralistic merge": example.merged,
            **{f"people: {name}": p for name, p in example.gold.items()},
        },
    )
    for warning in outcome.warnings:
        Console(stderr=True).print(f"warning: {warning}")
    print(f"{results['seconds']} seconds; results in {options.out}")
