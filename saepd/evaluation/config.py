"""What an evaluation holds out, draws and compares."""

from __future__ import annotations

from dataclasses import dataclass, field

from saepd.common.checks import check_number, check_part
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
        limit: The most test questions of one draw; all that are held out if not given.
        test_share: Share of the questions that are held out, between 0 and 1.
        seed: Seed of the first draw; the next ones count up from it.

    Raises:
        InputError: a number is out of range, or the kind of feedback is unknown.
    """

    n_feedback: int = 50
    draws: int = 5
    feedback_kind: DrawKind = "answer"
    limit: int | None = None
    test_share: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_feedback", "draws"):
            check_number(name, getattr(self, name), at_least=1, whole=True)
        if self.limit is not None:
            check_number("limit", self.limit, at_least=1, whole=True)
        check_kind(self.feedback_kind)
        check_number("test_share", self.test_share)
        if not 0 < self.test_share < 1:
            raise InputError(f"test_share is {self.test_share}: it must be between 0 and 1")
        check_number("seed", self.seed, at_least=0, whole=True)


@dataclass(frozen=True)
class EvaluationConfig:
    """What methods are compared on, and what all of them are given.

    Attributes:
        draw: Which questions are held out, and how much feedback is drawn.
        few_shot_tokens: The most tokens of examples in the few-shot prompt.

    Raises:
        InputError: a number is out of range, or draw is no configuration of draws.
    """

    draw: DrawConfig = field(default_factory=DrawConfig)
    few_shot_tokens: int = 512

    def __post_init__(self) -> None:
        check_part("draw", self.draw, DrawConfig)
        check_number("few_shot_tokens", self.few_shot_tokens, at_least=1, whole=True)
