"""The base's text beside the steered one, and at which tokens of both they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saepd.branches.engine.plan import Branch, check_prompts
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch
from saepd.branches.writing.strip import Piece
from saepd.branches.writing.trace import Generated
from saepd.common.frames import as_frame
from saepd.common.html import card, element, joined, note, strip
from saepd.merge.config import MergeConfig
from saepd.models.batching import Progress

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

_BASE_WRITES = MergeConfig("weighted", weights=(1.0, 0.0))
_STEERED_WRITES = MergeConfig("weighted", weights=(0.0, 1.0))


# KL in nats that is shaded most: there, the two models say different things.
STRONG_KL = 0.5


@dataclass(frozen=True, repr=False)
class Compared:
    """What a prompt is continued with, without steering and with it.

    Both models read both texts: each step's ``kl`` holds one number, the KL(base || steered) of
    the distribution that its token comes from, in nats.

    Attributes:
        prompt: What both texts continue.
        base: The text of the base model, with its steps.
        steered: The text of the steered model, with its steps.
    """

    prompt: str
    base: Generated
    steered: Generated

    def __repr__(self) -> str:
        lines = (
            f"  {name}: {text.text!r}"
            for name, text in (("base", self.base), ("steered", self.steered))
        )
        return "\n".join([f"Compared(after {self.prompt!r}", *lines]) + ")"

    def pieces(self) -> dict[str, list[Piece]]:
        """Both texts, cut into pieces with the KL of each, in nats."""
        texts = {"base": self.base, "steered": self.steered}
        return {name: text.pieces(lambda step: step.kl[0]) for name, text in texts.items()}

    def frame(self) -> pd.DataFrame:
        """One row for each token of either text, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                {
                    "text": name,
                    "place": place,
                    "token": step.text,
                    "kl": step.kl[0],
                }
                for name, text in (("base", self.base), ("steered", self.steered))
                for place, step in enumerate(text.steps)
            ]
        )

    def _repr_html_(self) -> str:
        strips = (
            joined(element("b", name), strip(pieces, most=STRONG_KL, what="KL, nats:"))
            for name, pieces in self.pieces().items()
        )
        return card(
            "base and steered text",
            note(
                f"after {self.prompt!r}; shaded by KL(base || steered), most from ",
                f"{STRONG_KL:g} nats on",
            ),
            *strips,
        )


def compare(
    model: TransformerBridge,
    prompts: Sequence[str],
    direction: Branch,
    sampling: SamplingConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[Compared]:
    """Continue prompts without and with steering, and say where the two models part.

    The texts are those that `generate_branches` writes: where tokens are drawn, both draw by the
    same luck.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        direction: One direction, or several that act together.
        sampling: How tokens are drawn, and where a text ends.
        progress: Told now and then how many texts are done, and of how many.

    Returns:
        For each prompt both texts, each token with its KL from base to steered, in nats.

    Raises:
        InputError: as `generate_branches`, or no direction.
    """
    n = len(check_prompts(model, prompts))
    written = []
    for i, writes in enumerate((_BASE_WRITES, _STEERED_WRITES)):

        def report(done: int, _of: int, before: int = i * n) -> None:
            if progress is not None:
                progress(before + done, 2 * n)

        written.append(
            generate_batch(
                model, prompts, [direction], writes, sampling, trace=True, progress=report
            )
        )
    return [Compared(*texts) for texts in zip(prompts, *written, strict=True)]
