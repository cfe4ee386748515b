"""``saepd evaluate``: the demo's comparison, on items and feedback of one's own."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.demo import run_and_report
from saepd.cli.options import ModelOptions
from saepd.errors import InputError
from saepd.experiment import ExperimentConfig

EXAMPLES = """\
  saepd evaluate --items items.jsonl --feedback feedback.jsonl --out out/mine
  saepd evaluate --items items.csv --feedback feedback.csv --n-folds 4 --out out/mine

An items row: {"id": "q1", "prompt": "...", "options": ["Yes", "No"], "perspective": "A",
               "distribution": [0.7, 0.3]}
A feedback row: {"id": "r1", "perspective": "A", "prompt": "...", "options": ["Yes", "No"],
                 "item": "q1", "answer": "Yes"}"""


@dataclass
class Options:
    """What is compared.

    Attributes:
        items: JSONL or CSV file of questions with each perspective's gold distribution.
        feedback: JSONL or CSV file of answers.
        out: Folder for results.json, table.md and the directions of the first fold.
        skip_bad: Go on without bad rows, and say how many there are.
        json: Print the results as JSON instead of tables.
        wandb: Track the run: off, offline or online.
    """

    items: Path
    feedback: Path
    out: Path
    skip_bad: bool = False
    json: bool = False
    wandb: str = "off"
    where: ModelOptions = field(default_factory=ModelOptions)
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)


def run(options: Options) -> None:
    """Run the comparison and write what it found."""
    from saepd.feedback import load_feedback, load_items

    began = time.perf_counter()
    items = load_items(options.items, skip_bad=options.skip_bad)
    feedback = load_feedback(options.feedback, skip_bad=options.skip_bad)
    for path, loaded in ((options.items, items), (options.feedback, feedback)):
        if loaded.problems:
            print(f"{path}: went on without {loaded.n_bad} bad rows", file=sys.stderr)
    perspectives = {row.perspective for row in feedback.rows}
    for item in items.rows:
        lacking = perspectives - set(item.distributions)
        if lacking:
            raise InputError(
                f"{options.items}: item {item.id!r} has no distribution of {sorted(lacking)[0]!r}: "
                "every item needs one for each perspective of the feedback"
            )
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
    run_and_report(
        options, items.rows, asked, title="Distance to the gold, questions held out", began=began
    )
