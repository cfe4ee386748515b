"""``saepd evaluate``: methods against nulls and each other, on a published task or one's own."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from saepd.cli.options import check_folder, load_model_and_saes, print_json, print_table
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.common.tracking import TrackingConfig, TrackingMode
from saepd.evaluation.config import EvaluationConfig
from saepd.models.choice import ModelConfig
from saepd.tasks.loading import PACKAGED_TASK, TASK_NAMES, load_task
from saepd.tasks.own import own_task
from saepd.tasks.task import Task

EXAMPLES = """\
  saepd evaluate --task globalopinionqa --data goqa.json --out out/goqa
  saepd evaluate --task hs-brexit --data hs_brexit/ --out out/hs \\
      --methods zero-shot train-mean
  saepd evaluate --items items.jsonl --feedback feedback.jsonl --out out/mine

A run that was stopped goes on where it stopped: start it again with the same
settings. A row of items and one of feedback:

  {"id": "q1", "prompt": "...", "options": ["Yes", "No"], "perspective": "A",
   "distribution": [0.7, 0.3]}
  {"id": "r1", "perspective": "A", "prompt": "...", "options": ["Yes", "No"],
   "item": "q1", "answer": "Yes"}"""

FIRST = ("task", "data", "items", "feedback", "methods", "out")


@dataclass(kw_only=True)
class Options:
    """What is compared.

    Attributes:
        out: Folder for predictions.parquet, summary.json, table.md, population.md (one answer for
            the whole population) and what resuming needs.
        task: Published task: one of gss (packaged, needs no --data), globalopinionqa, opinionqa,
            hs-brexit, hs-brexit-annotators, hatecheck, liar, liar-binary, claims, moralchoice.
        data: File or folder of the published task.
        items: Instead of a task: JSONL or CSV file of your questions with their gold distributions.
        feedback: JSONL or CSV file of answers to your questions; drawn from the gold distributions
            if not given.
        also: Further SAEs, each the block of a shipped one or a folder: learned directions then
            write at the sites of all, learned together.
        methods: Ids of methods, or all; if not given, those that the task allows and that do not
            take long.
        perspectives: How many perspectives take part (those with most items), or their names.
        skip_bad: Go on without bad rows of your own files, and say how many there are.
        json: Print the summary as JSON instead of a table.
        wandb: Record the run in W&B: off, offline or online.
    """

    out: Path
    task: str | None = None
    data: Path | None = None
    items: Path | None = None
    feedback: Path | None = None
    also: list[str] = field(default_factory=list)
    methods: list[str] | None = None
    perspectives: list[str] = field(default_factory=lambda: ["10"])
    skip_bad: bool = False
    json: bool = False
    wandb: TrackingMode = "off"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Run what is missing, and write and print what was found."""
    from saepd.common.tracking import track
    from saepd.evaluation.fold import make_draws
    from saepd.evaluation.methods.choice import methods_of
    from saepd.evaluation.results.table import finding, table_cells
    from saepd.evaluation.run import check_task, evaluate

    began = time.perf_counter()
    check_folder(options.out)
    config = options.evaluation
    task = _task(options)
    task = task.only(_perspectives(options.perspectives, task))
    # Before a model is loaded for it.
    methods_of(task, options.methods)
    check_task(task)
    make_draws(task, config.draw)
    where = {**asdict(options.where), "also": options.also}
    settings = {"task": task.name, **asdict(config), "where": where}
    with track(TrackingConfig(mode=options.wandb), settings, job_type="evaluate") as tracker:
        model, saes = load_model_and_saes(options.where, [None, *options.also])
        with progress_bar("starting") as report:
            summary = evaluate(model, saes, task, config, options.out, options.methods, report)
        tracker.log_table("results", summary["rows"])
        if summary.population:
            tracker.log_table("population", summary.population)
    if options.json:
        print_json(summary)
        return
    print_table(f"{task.name}, questions held out", *table_cells(summary["rows"], short=True))
    print(finding(summary["rows"]))
    if summary.population:
        print_table(
            "One answer for the whole population", *table_cells(summary.population, short=True)
        )
        print(finding(summary.population))
    print(f"{time.perf_counter() - began:.1f} seconds; results in {options.out}")


def _task(options: Options) -> Task:
    """The task that the options name, whole."""
    if options.items is None and options.feedback is not None:
        raise InputError("--feedback is about items of your own: give --items as well")
    if options.items is not None:
        if options.task is not None or options.data is not None:
            raise InputError("give --task and --data, or --items and --feedback, not both")
        task = own_task(options.items, options.feedback, skip_bad=options.skip_bad)
        for reason, n in task.left_out.items():
            print(f"went on without {n} {reason}", file=sys.stderr)
        return task
    if options.task is None:
        raise InputError(
            f"nothing to evaluate on: give --task (one of {', '.join(TASK_NAMES)}) and --data, or "
            "--items and --feedback of your own"
        )
    if options.data is None and options.task in TASK_NAMES and options.task != PACKAGED_TASK:
        raise InputError(f"--task {options.task} needs --data: name its file or folder")
    return load_task(options.task, options.data)


def _perspectives(words: list[str], task: Task) -> int | list[str]:
    """Names; or how many, where the only word is a number and nobody's name."""
    if len(words) == 1 and words[0].isdecimal() and words[0] not in task.perspectives:
        return int(words[0])
    return words
