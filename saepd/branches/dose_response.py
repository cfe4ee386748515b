"""What more and more of a direction does: effect, side effects, and when text falls apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import torch

from saepd.branches.dose import relative_dose
from saepd.branches.engine.plan import check_prompts
from saepd.branches.neutral import kl_to_base, side_effects
from saepd.branches.run import branch, score_continuations, score_tokens
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.branches.writing.trace import Generated
from saepd.common.checks import check_numbers
from saepd.common.frames import as_frame
from saepd.common.html import card, table
from saepd.directions.accepting import Directions, as_directions
from saepd.metrics.repetition import repetition

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class DosePoint:
    """What directions do at one strength.

    Attributes:
        strength: Factor of the directions' own coefficients; 0 is the base model.
        relative_dose: Norm of what is written over that of the residual, on neutral prompts,
            summed over the directions.
        effect: Nats of log-likelihood that the wanted text gains after the prompts, on average;
            where none is given, the mean KL(base || steered) of the token after the prompts.
        kl: Mean KL(base || steered) of the token after neutral prompts, in nats.
        perplexity_ratio: Perplexity of plain continuations of neutral prompts over the base's.
        repetition: Share of 3-grams that the text written after the prompts has had before, mean
            over prompts.
        perplexity: Perplexity, under the base model, of all tokens written after the prompts; NaN
            where none was.
        texts: What was written after each prompt.
    """

    strength: float
    relative_dose: float
    effect: float
    kl: float
    perplexity_ratio: float
    repetition: float
    perplexity: float
    texts: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class DoseResponse:
    """What directions do at several strengths, the base model first.

    Attributes:
        points: One for the base model, then one for each strength.
        towards: The text whose log-likelihood is the effect; None where that is a KL.
        prompts: What the texts continue.
    """

    points: tuple[DosePoint, ...]
    towards: str | None
    prompts: tuple[str, ...]

    def __repr__(self) -> str:
        lines = (
            f"  strength {p.strength:g}: effect {p.effect:+.3f}, KL {p.kl:.4f}, repetition "
            f"{p.repetition:.2f}, perplexity {p.perplexity:.2f}"
            for p in self.points
        )
        return "\n".join(["DoseResponse(", *lines]) + ")"

    def frame(self) -> pd.DataFrame:
        """One row a strength, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame([asdict(point) for point in self.points])

    def _repr_html_(self) -> str:
        numbers = [field.name for field in fields(DosePoint) if field.name != "texts"]
        rows = [[getattr(point, name) for name in numbers] for point in self.points]
        texts = [[f"{point.strength:g}", text] for point in self.points for text in point.texts]
        return card(
            "what strengths do",
            table([name.replace("_", " ") for name in numbers], rows),
            table(["strength", "text"], texts),
        )


def dose_response(
    model: TransformerBridge,
    prompts: Sequence[str],
    together: Directions,
    strengths: Sequence[float] = STRENGTHS,
    *,
    towards: str | None = None,
    sampling: SamplingConfig | None = None,
) -> DoseResponse:
    """Measure directions that act together at several strengths, all as branches of one pass.

    Args:
        model: From `saepd.load_model`.
        prompts: What the steered texts continue.
        together: One direction, or several that act together.
        strengths: Factors of their own coefficients.
        towards: A text that the directions are meant to make likelier after the prompts.
        sampling: How texts are written.

    Returns:
        The base model, as strength 0, and then each strength in the order given.

    Raises:
        InputError: strengths that are no finite numbers, or whatever `branch`,
            `generate_branches` and `score_continuations` refuse.
    """
    check_numbers("strengths", strengths)
    together = as_directions(together)
    branches = [[strength * direction for direction in together] for strength in strengths]
    rows = check_prompts(model, prompts)
    written = generate_branches(model, prompts, branches, sampling)
    doses = sum(relative_dose(model, together))
    if towards is None:
        effects = kl_to_base(branch(model, prompts, branches)).tolist()
    else:
        scores = score_continuations(model, prompts, [[towards]] * len(prompts), branches)
        gained = torch.stack([s.log_probs[:, 0] - s.log_probs[0, 0] for s in scores])
        effects = gained.double().mean(0)[1:].tolist()
    side = side_effects(model, branches)
    perplexities = _perplexities(model, rows, written)
    points = []
    for i, strength in enumerate((0.0, *strengths)):
        generated = [texts[i] for texts in written]
        points.append(
            DosePoint(
                strength=float(strength),
                relative_dose=abs(strength) * doses,
                effect=0.0 if i == 0 else effects[i - 1],
                kl=0.0 if i == 0 else side[i - 1].kl,
                perplexity_ratio=1.0 if i == 0 else side[i - 1].perplexity_ratio,
                repetition=sum(repetition(text.tokens) for text in generated) / len(generated),
                perplexity=perplexities[i],
                texts=tuple(text.text for text in generated),
            )
        )
    return DoseResponse(tuple(points), towards, tuple(prompts))


def _perplexities(
    model: TransformerBridge,
    rows: Sequence[list[int]],
    written: Sequence[Sequence[Generated]],
) -> list[float]:
    """For each branch, the perplexity of all it wrote under the base model; NaN if nothing."""
    # A branch may have written nothing after a prompt, which has no likelihood.
    wrote = [[i for i, text in enumerate(texts) if text.tokens] for texts in written]
    asked = [i for i, some in enumerate(wrote) if some]
    texts = [[list(written[i][branch].tokens) for branch in wrote[i]] for i in asked]
    total = torch.zeros(len(written[0]), 2, dtype=torch.float64)
    scores = score_tokens(model, [rows[i] for i in asked], texts, []) if asked else []
    for i, scored in zip(asked, scores, strict=True):
        total[wrote[i], 0] += scored.log_probs[0].double()
        total[wrote[i], 1] += torch.tensor(scored.n_tokens, dtype=torch.float64)
    return (-total[:, 0] / total[:, 1]).exp().tolist()
