"""What an evaluation holds out, draws and compares."""

from __future__ import annotations

from dataclasses import dataclass, field

from saepd.common.errors import InputError
from saepd.tasks.draws import DrawKind, check_kind


@dataclass(frozen=True)
class DrawConfig:
    """Which questions are held out, and how much feedback is drawn from the others.

    Attributes:
        n_feedback: Rows of feedback of each perspective that methods are given.
        draws: How often questions are split and feedback is drawn anew.
        feedback_kind: What a row of feedback is: one person's answer, or the distribution of a
            whole group's answers.
        limit: Most test questions of one draw; all that are held out if not given.
        test_share: Share of the questions that are held out, between 0 and 1.
        seed: Seed of the first draw; the next ones count up from it.
    """

    n_feedback: int = 50
    draws: int = 5
    feedback_kind: DrawKind = "answer"
    limit: int | None = None
    test_share: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_feedback", "draws", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")
        check_kind(self.feedback_kind)
        if not 0 < self.test_share < 1:
            raise InputError(f"test_share is {self.test_share}: it must be between 0 and 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: it must be 0 or more")


@dataclass(frozen=True)
class EvaluationConfig:
    """What methods are compared on, and what all of them are given.

    Attributes:
        draw: Which questions are held out, and how much feedback is drawn.
        few_shot_tokens: Most tokens of examples in the few-shot prompt.
    """

    draw: DrawConfig = field(default_factory=DrawConfig)
    few_shot_tokens: int = 512

    def __post_init__(self) -> None:
        if self.few_shot_tokens < 1:
            raise InputError(f"few_shot_tokens is {self.few_shot_tokens}: it must be at least 1")
