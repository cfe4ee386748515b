"""``saepd fit``: feedback in, directions out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.options import ModelOptions, check_folder, print_json, print_table, spinning
from saepd.fit import FitConfig

if TYPE_CHECKING:
    from saepd.schema import Feedback

EXAMPLES = """\
  saepd fit --out steering                      (embedded survey answers, 50 per group)
  saepd fit --feedback mine.jsonl --out steering
  saepd fit --feedback mine.csv --skip-bad --k 16 --kl-budget 0.2 --out steering

A feedback row: {"id": "r1", "perspective": "A", "prompt": "Should buses be free?",
                 "options": ["Yes", "No"], "answer": "Yes", "comment": "..."}"""


@dataclass
class FeedbackOptions:
    """Which feedback.

    Attributes:
        feedback: JSONL or CSV file; the embedded survey answers if not given.
        n_feedback: Rows drawn per perspective; all of a file (50 of the survey) if 0.
        feedback_seed: Of the draw.
        skip_bad: Go on without bad rows, and say how many there are.
    """

    feedback: Path | None = None
    n_feedback: int = 0
    feedback_seed: int = 0
    skip_bad: bool = False

    def load(self) -> Sequence[Feedback]:
        """The rows that were asked for."""
        from saepd.feedback import load_feedback, sample_feedback

        if self.feedback is None:
            from saepd.survey import survey_feedback

            return sample_feedback(survey_feedback(), self.n_feedback or 50, self.feedback_seed)
        loaded = load_feedback(self.feedback, skip_bad=self.skip_bad)
        if loaded.problems:
            print(f"{self.feedback}: went on without {loaded.n_bad} bad rows", file=sys.stderr)
        if self.n_feedback:
            return sample_feedback(loaded.rows, self.n_feedback, self.feedback_seed)
        return loaded.rows


@dataclass
class Options:
    """What is fitted.

    Attributes:
        out: Folder for steering.safetensors and steering.json.
        json: Print what was written as JSON.
    """

    out: Path
    json: bool = False
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelOptions = field(default_factory=ModelOptions)
    fit: FitConfig = field(default_factory=FitConfig)


def run(options: Options) -> None:
    """Fit, save, and say what was made."""
    from saepd.features import overlap
    from saepd.fit import fit_directions
    from saepd.steering import save_to_disk

    check_folder(options.out)
    rows = options.rows.load()
    model, sae = options.where.load()
    with spinning(f"fitting on {len(rows)} rows"):
        fitted = fit_directions(model, sae, rows, options.fit)
    save_to_disk(fitted.directions, options.out)
    summary = [
        {
            "perspective": features.perspective,
            "n_feedback": len(fitted.pairs.of(features.perspective)),
            "n_latents": len(features.latents),
            "n_unstable": features.n_unstable,
            "coefficient": direction.coefficient,
            "hook_name": direction.hook_name,
            "positions": direction.positions,
        }
        for features, direction in zip(fitted.features, fitted.directions, strict=True)
    ]
    shared = {f"{a} / {b}": share for (a, b), share in overlap(fitted.features).items()}
    if options.json:
        print_json({"out": str(options.out), "directions": summary, "overlap": shared})
        return
    names = ("perspective", "n_feedback", "n_latents", "n_unstable", "coefficient")
    print_table(
        f"Directions in {options.out}: {summary[0]['hook_name']}, {summary[0]['positions']}",
        ["perspective", "feedback", "latents", "unstable", "coefficient"],
        [
            [f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names]
            for row in summary
        ],
    )
    for pair, share in shared.items():
        print(f"latents shared by {pair}: {share:.0%}")
