"""``saepd evaluate``: methods against nulls and each other, on a published task or one's own."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from saepd.cli.options import check_folder, load_model_and_sae, print_json, print_table, progress
from saepd.common.errors import InputError
from saepd.common.tracking import Mode, TrackingConfig
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.evaluation.config import EvaluationConfig
    from saepd.tasks import Task

EXAMPLES = """\
  saepd evaluate --task globalopinionqa --data globalopinionqa.json --out out/goqa
  saepd evaluate --task hs-brexit --data hs_brexit/ --methods "zero-shot, train-mean" --out out/hs
  saepd evaluate --items items.jsonl --feedback feedback.jsonl --n-feedback 20 --out out/mine

A run that was stopped goes on where it stopped: start it again with the same settings.

An items row: {"id": "q1", "prompt": "...", "options": ["Yes", "No"], "perspective": "A",
               "distribution": [0.7, 0.3]}
A feedback row: {"id": "r1", "perspective": "A", "prompt": "...", "options": ["Yes", "No"],
                 "item": "q1", "answer": "Yes"}"""


@dataclass
class Options:
    """What is compared.

    Attributes:
        out: Folder for predictions.parquet, summary.json, table.md and what resuming needs.
        task: One of globalopinionqa, opinionqa, hs-brexit, hs-brexit-annotators, hatecheck,
            liar, liar-binary, claims, moralchoice; give --data with it.
        data: The task's own file or folder.
        items: Instead of a task: JSONL or CSV file of your questions with their gold distributions.
        feedback: JSONL or CSV file of answers to your questions.
        methods: Names with commas between them, or all; if not given, those that the task allows
            and that do not take long.
        perspectives: How many (those with most items), or names with commas between them.
        n_feedback: Questions per perspective that methods see the answers to.
        draws: How often questions are split and feedback is drawn anew.
        feedback_kind: answer (one person's a row) or distribution (a whole group's).
        limit: Most test items of a draw; all if not given.
        test_share: Share of the questions that are held out.
        few_shot_tokens: Most tokens of examples in the few-shot prompt.
        seed: Of the first draw.
        skip_bad: Go on without bad rows of your own files, and say how many there are.
        json: Print the summary as JSON instead of a table.
        wandb: Track the run: off, offline or online.
    """

    out: Path
    task: str | None = None
    data: Path | None = None
    items: Path | None = None
    feedback: Path | None = None
    methods: str | None = None
    perspectives: str = "10"
    n_feedback: int = 50
    draws: int = 5
    feedback_kind: Literal["answer", "distribution"] = "answer"
    limit: int | None = None
    test_share: float = 0.3
    few_shot_tokens: int = 512
    seed: int = 0
    skip_bad: bool = False
    json: bool = False
    wandb: Mode = "off"
    where: ModelConfig = field(default_factory=ModelConfig)

    def config(self) -> EvaluationConfig:
        """The settings of the evaluation itself."""
        from saepd.evaluation.config import DrawConfig, EvaluationConfig

        draws = DrawConfig(
            n_feedback=self.n_feedback,
            draws=self.draws,
            feedback_kind=self.feedback_kind,
            limit=self.limit,
            test_share=self.test_share,
            seed=self.seed,
        )
        return EvaluationConfig(draws, self.few_shot_tokens)


def run(options: Options) -> None:
    """Run what is missing, and write and print what was found."""
    from saepd.common.tracking import track
    from saepd.evaluation.fold import make_draws
    from saepd.evaluation.methods.registry import methods_of, parse_methods
    from saepd.evaluation.results.table import table_cells
    from saepd.evaluation.run import check_task, evaluate

    began = time.perf_counter()
    check_folder(options.out)
    config = options.config()
    task = _chosen(_load(options), options.perspectives)
    names = None if options.methods is None else parse_methods(options.methods)
    # Before a model is loaded for it.
    methods_of(task, names)
    check_task(task)
    make_draws(task, config.draws)
    settings = {"task": task.name, **asdict(config), "where": asdict(options.where)}
    with track(TrackingConfig(mode=options.wandb), settings, job_type="evaluate") as tracker:
        model, sae = load_model_and_sae(options.where)
        with progress("starting") as report:
            summary = evaluate(model, sae, task, config, options.out, names, report)
        tracker.log_table("results", summary["rows"])
    if options.json:
        print_json(summary)
        return
    print_table(f"{task.name}, questions held out", *table_cells(summary["rows"], short=True))
    print(f"{time.perf_counter() - began:.1f} seconds; results in {options.out}")


def _load(options: Options) -> Task:
    from saepd.tasks import TASK_NAMES, load_task

    if options.items is not None or options.feedback is not None:
        if options.task not in (None, "own") or options.data is not None:
            raise InputError("give --task and --data, or --items and --feedback, not both")
        return _own(options)
    if options.task is None:
        raise InputError(
            f"nothing to evaluate on: give --task (one of {', '.join(TASK_NAMES)}) and --data, or "
            "--items and --feedback of your own"
        )
    if options.data is None and options.task in TASK_NAMES:
        raise InputError(f"--task {options.task} needs --data: name its file or folder")
    return load_task(options.task, options.data or "")


def _own(options: Options) -> Task:
    from saepd.feedback.reading import load_feedback, load_items
    from saepd.tasks import Task
    from saepd.tasks.ordinal import ordinal_items
    from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING

    if options.items is None or options.feedback is None:
        raise InputError("--items and --feedback go together: give both, or --task and --data")
    items = load_items(options.items, skip_bad=options.skip_bad)
    feedback = load_feedback(options.feedback, skip_bad=options.skip_bad)
    for path, loaded in ((options.items, items), (options.feedback, feedback)):
        if loaded.problems:
            print(f"{path}: went on without {loaded.n_bad} bad rows", file=sys.stderr)
    known = {item.id: item for item in items.rows}
    asked = [row for row in feedback.rows if row.item in known]
    for row in asked:
        if row.options != known[row.item].options:
            raise InputError(
                f"{options.feedback}: feedback {row.id!r} has other options than item {row.item!r} "
                f"in {options.items}: write the same ones in the same order"
            )
    if not asked:
        raise InputError(
            f'{options.feedback}: no row\'s item is an id of {options.items}: write it as "item"'
        )
    for name in dict.fromkeys(row.perspective for row in asked):
        if not any(name in item.distributions for item in items.rows):
            raise InputError(
                f"{options.items}: no item has a distribution of {name!r}: without one, what is "
                "predicted for it cannot be compared with anything"
            )
    return Task(
        name="own",
        items=tuple(items.rows),
        wording=SURVEY_WORDING,
        metrics=OPINION_METRICS,
        feedback=tuple(asked),
        ordinal=ordinal_items(items.rows),
    )


def _chosen(task: Task, perspectives: str) -> Task:
    """The task of the first so many perspectives, or of those named."""
    text = perspectives.strip()
    if text.isdecimal():
        if int(text) < 1:
            raise InputError(f"--perspectives is {text}: ask for 1 or more, or give names")
        return task.only(task.perspectives[: int(text)])
    if text in task.perspectives:
        return task.only([text])
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--perspectives is empty: give a number or names")
    return task.only(names)
