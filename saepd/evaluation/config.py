"""What an evaluation holds out, draws and compares."""

from __future__ import annotations

from dataclasses import dataclass, field

from saepd.common.errors import InputError
from saepd.tasks.draws import DrawKind


@dataclass(frozen=True)
class DrawConfig:
    """What is held out and how much feedback is drawn.

    Attributes:
        n_feedback: Questions per perspective that methods see the answers to.
        draws: How often questions are split and feedback is drawn anew.
        feedback_kind: ``answer``: one person's answer a row; ``distribution``: a whole group's.
        limit: Most test items of a draw; all if not given.
        test_share: Share of the questions that are held out.
        seed: Of the first draw; the next ones count up.
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


@dataclass(frozen=True)
class EvaluationConfig:
    """What is compared, and on how much.

    Attributes:
        draws: Of questions and feedback.
        few_shot_tokens: Most tokens of examples in the few-shot prompt.
    """

    draws: DrawConfig = field(default_factory=DrawConfig)
    few_shot_tokens: int = 512
