"""``saepd triage``: which items a person should look at, and why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from saepd.cli.options import check_folder, print_json, print_table
from saepd.cli.steering import SteeringOptions
from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.progress import progress_bar
from saepd.common.versions import package_versions
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.uncertainty.config import AssessmentConfig

EXAMPLES = """\
  saepd triage --data items.jsonl --steering steering --out out/triage
  saepd triage --data items.csv --steering steering --budget 20 \\
      --feedback mine.jsonl --out out/triage

What to ask is in out/triage/questions.jsonl: write an answer (and who gives it)
into each row, then

  saepd fit --feedback out/triage/questions.jsonl --skip-bad --out steering

goes on without the rows that are still empty; append the rows of earlier
feedback to keep them."""

FIRST = ("data", "steering", "budget", "feedback", "out")


@dataclass(kw_only=True)
class Options:
    """What is triaged.

    Attributes:
        data: JSONL or CSV file of items; options may be empty, for answers in free text.
        out: Folder that triage.jsonl (the ranking), questions.jsonl (what to fill in) and
            triage.json (the settings) are written to.
        budget: Questions that a person can answer.
        feedback: JSONL or CSV file of answers so far, which probabilities are tempered by.
        centre: Take off what the model gives options whatever is asked.
        perspective: Name of who will answer; otherwise to be filled in with each answer.
        skip_bad: Go on without bad rows, and say how many there are.
        json: Print the ranking as JSON instead of a table.
    """

    data: Path
    out: Path
    budget: int = 50
    feedback: Path | None = None
    centre: bool = False
    perspective: str = ""
    skip_bad: bool = False
    json: bool = False
    directions: SteeringOptions
    where: ModelConfig = field(default_factory=ModelConfig)
    assessment: AssessmentConfig = field(default_factory=AssessmentConfig)


def run(options: Options) -> None:
    """Assess, rank, write and print."""
    from saepd.common.files import write_atomically, write_json
    from saepd.feedback.reading import load_feedback, load_items
    from saepd.uncertainty.assessment import assess
    from saepd.uncertainty.reading import fit_reading
    from saepd.uncertainty.triage import question_dict, triage_dict, triage_items

    check_folder(options.out)
    _check_unanswered(options.out / "questions.jsonl")
    if options.budget < 1:
        raise InputError(f"--budget is {options.budget}: a person must answer at least 1 question")
    items = load_items(options.data, skip_bad=options.skip_bad)
    rows = None
    if options.feedback is not None:
        rows = load_feedback(options.feedback, skip_bad=options.skip_bad)
    for path, loaded in ((options.data, items), (options.feedback, rows)):
        if loaded is not None and loaded.problems:
            print(f"{path}: went on without {loaded.n_bad} bad rows", file=sys.stderr)
    options.directions.check(MergeConfig())
    model, directions = options.directions.load(options.where)
    with progress_bar("starting") as report:
        readout = options.directions.readout(options.assessment.readout)
        reading = fit_reading(
            model, items.rows, rows, readout, centre=options.centre, directions=directions
        )
        config = replace(options.assessment, readout=readout)
        assessments = assess(model, items.rows, directions, reading, config, report)
    by_id = {item.id: item for item in items.rows}
    ranked = triage_items(assessments, options.budget)
    ranking = [triage_dict(one, by_id[one.assessment.item]) for one in ranked]
    questions = [question_dict(by_id[one.assessment.item], options.perspective) for one in ranked]
    write_atomically(options.out / "triage.jsonl", _lines(ranking))
    write_atomically(options.out / "questions.jsonl", _lines(questions))
    settings = {
        "data": str(options.data),
        "steering": str(options.directions.steering),
        "feedback": None if options.feedback is None else str(options.feedback),
        "items": len(assessments),
        "budget": options.budget,
        "config": asdict(config),
        "versions": package_versions(),
    }
    write_json(options.out / "triage.json", settings)
    warnings = [one.warning for one in assessments if one.warning]
    for warning in warnings[:10]:
        print(f"warning: {warning}", file=sys.stderr)
    if warnings:
        print(f"{len(warnings)} of {len(assessments)} items have a warning", file=sys.stderr)
    if options.json:
        print_json(ranking)
        return
    print_table(
        f"{len(ranking)} of {len(assessments)} items, those that need a person most first",
        ["rank", "need", "item", "why"],
        [[str(row["rank"]), f"{row['need']:.2f}", row["id"], row["why"]] for row in ranking],
        sentences=["why"],
    )
    print(f"write answers into {options.out / 'questions.jsonl'}, then give it to saepd fit")


def _check_unanswered(questions: Path) -> None:
    """Refuse to write over questions that somebody has answered."""
    if not questions.exists():
        return
    try:
        answered = any(json.loads(line)["answer"] for line in read_text(questions).splitlines())
    except (ValueError, TypeError, KeyError):
        # No row that this command wrote: somebody has worked on it.
        answered = True
    if answered:
        raise InputError(
            f"{questions} holds answers, which would be lost: name another folder with --out"
        )


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
