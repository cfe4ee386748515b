"""Which feedback a command reads: a file of it, or the packaged survey, and how much."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saepd.feedback.schema import Feedback


@dataclass
class FeedbackOptions:
    """Which feedback is read.

    Attributes:
        feedback: JSONL or CSV file of feedback; the packaged survey answers if not given.
        n_feedback: Rows drawn per perspective; 0 takes all of a file, and 50 of the survey.
        feedback_seed: Seed of the draw of rows.
        skip_bad: Go on without bad rows, and say how many there are.
    """

    feedback: Path | None = None
    n_feedback: int = 0
    feedback_seed: int = 0
    skip_bad: bool = False

    def load(self) -> Sequence[Feedback]:
        """The rows that were asked for."""
        from saepd.feedback.reading import load_feedback
        from saepd.feedback.sample import sample_feedback

        if self.feedback is None:
            from saepd.feedback.survey import survey_feedback

            return sample_feedback(survey_feedback(), self.n_feedback or 50, self.feedback_seed)
        loaded = load_feedback(self.feedback, skip_bad=self.skip_bad)
        if loaded.problems:
            print(f"{self.feedback}: went on without {loaded.n_bad} bad rows", file=sys.stderr)
        if self.n_feedback:
            return sample_feedback(loaded.rows, self.n_feedback, self.feedback_seed)
        return loaded.rows
