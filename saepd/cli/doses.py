"""What strengths do, on the terminal: a table, what its columns hold, and every text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saepd.cli.options import print_table
from saepd.common.messages import shortened

if TYPE_CHECKING:
    from saepd.branches.dose_response import DoseResponse


def show_doses(response: DoseResponse, towards: str | None) -> None:
    """A row for each strength, then the text that was written at it."""
    gained = "effect" if towards is None else "gain"
    print_table(
        "what strengths do",
        ["strength", "dose", gained, "KL", "ratio", "repeats", "perplexity"],
        [
            [
                f"{point.strength:g}",
                f"{point.relative_dose:.3f}",
                f"{point.effect:+.3f}",
                f"{point.kl:.4f}",
                f"{point.perplexity_ratio:.3f}",
                f"{point.repetition:.2f}",
                f"{point.perplexity:.2f}",
            ]
            for point in response.points
        ],
    )
    print(_legend(towards))
    for point in response.points:
        print(f"[{point.strength:g}] {point.texts[0]}")


def _legend(towards: str | None) -> str:
    """What the columns of the table of strengths hold."""
    effect = (
        "effect: nats by which the token after the prompt moves"
        if towards is None
        else f"gain: nats of log-likelihood that {shortened(towards)} gains after the prompt"
    )
    return (
        "dose: share of the residual's norm that is written, on neutral text\n"
        f"{effect}\n"
        "KL, ratio: nats by which neutral text moves, and its perplexity over the base's\n"
        "repeats: share of 3-grams in the text below that it has had before\n"
        "perplexity: of that text, under the base model"
    )
