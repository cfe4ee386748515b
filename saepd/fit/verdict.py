"""What a fit came to, in words and numbers: what it gains, what chance gains, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from saepd.branches.dose import relative_dose
from saepd.branches.neutral import NEUTRAL_PROMPTS, side_effects
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.frames import as_frame
from saepd.common.html import card, element, table
from saepd.directions.direction import Direction
from saepd.fit.gating import Gated
from saepd.fit.kinds import LearnedKinds
from saepd.metrics.intervals import Interval
from saepd.metrics.repetition import repetition

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

# Texts in which repetition is measured, and their length in tokens.
_N_TEXTS = 4
_WRITTEN = SamplingConfig(max_new_tokens=30, temperature=0.0)

TITLES = {
    "latents": "chosen latents",
    "vector": "a dense vector",
    "random": "as many random latents",
    "shuffled": "latents chosen for shuffled perspectives",
    "another's": "another perspective's direction",
}


@dataclass(frozen=True)
class Cost:
    """What one direction does besides what it was learned for.

    Attributes:
        dose: Norm of what it writes over that of the residual it is written into.
        kl: Mean KL of the next token after neutral prompts from the base's, nats.
        perplexity_ratio: Perplexity of plain text under it over that under the base.
        repetition: Share of the 3-grams of generated text that the text has had before.
        base_repetition: Share of the 3-grams of the base model's text that it has had before.
    """

    dose: float
    kl: float
    perplexity_ratio: float
    repetition: float
    base_repetition: float


@dataclass(frozen=True)
class Verdict:
    """What a fit came to.

    Gains are nats of an answer's likelihood over the readout alone (temperature and position
    biases, without steering), on questions that were not fitted to and with directions that ran.

    Attributes:
        supported: Whether the directions gain more than a standard error.
        steers: Whether they write anything.
        unsteered: Loss of the readout alone on questions not seen, nats an answer.
        gain: What the directions gain; None where too little feedback is left to say.
        by_perspective: Perspective -> what its own direction gains on its own answers.
        controls: What else could have been written -> what that gains; and what the directions
            gain on the answers that controls ran on, where these are not all.
        n_answers: Perspective -> rows of feedback.
        n_controlled: How many of them controls ran on, spread over the perspectives.
        n_latents: How many latents the directions are made of; 0 for dense vectors.
        gate: What gates do: ``weighs the direction``, ``writes alone``, or nothing where there are
            none.
        costs: Perspective -> what its direction does besides.
        settings: The penalties that cross-validation chose.
    """

    supported: bool
    steers: bool
    unsteered: float
    gain: Interval | None
    by_perspective: dict[str, Interval | None]
    controls: dict[str, Interval | None]
    n_answers: dict[str, int]
    n_controlled: int
    n_latents: int
    gate: str = ""
    costs: dict[str, Cost] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """One sentence."""
        if self.gain is None:
            return "There is too little feedback to say whether steering helps."
        gain = (
            f"{self.gain.estimate:+.4f} nats an answer [{self.gain.low:+.4f}, "
            f"{self.gain.high:+.4f}] on questions not seen, beside the readout alone"
        )
        if self.supported:
            random = self.controls.get(TITLES["random"])
            chance = f"; random latents gain {random.estimate:+.4f}" if random else ""
            if random and self.n_controlled < sum(self.n_answers.values()):
                chance += f" on {self.n_controlled} of the answers"
            # More than a standard error is not yet all of an interval.
            verb = "helps" if self.gain.low > 0 else "may help"
            return f"{'Steering by gates' if self.gate else 'Steering'} {verb}: {gain}{chance}."
        said = "nothing is written" if not self.steers else "it is written all the same"
        return f"The feedback does not support steering, so {said}: {gain}."

    def frame(self) -> pd.DataFrame:
        """What the directions, each perspective's own and every control gain, one row each.

        Raises:
            InputError: pandas is missing.
        """
        columns = ("what", "gain", "low", "high")
        return as_frame([dict(zip(columns, row, strict=True)) for row in self._gains()])

    def _gains(self) -> list[list[Any]]:
        """Rows of what is written, its gain, and the interval's ends; the directions first."""
        gains = {
            "directions": self.gain,
            **{f"{name}'s own": gain for name, gain in self.by_perspective.items()},
            **self.controls,
        }
        return [[what, *(gain or (None, None, None))] for what, gain in gains.items()]

    def _repr_html_(self) -> str:
        costs = [[name, *asdict(cost).values()] for name, cost in self.costs.items()]
        named = [one.name.replace("_", " ") for one in fields(Cost)]
        return card(
            "verdict",
            element("p", str(self)),
            table(["nats an answer", "gain", "low", "high"], self._gains(), digits=4),
            table(["perspective", *named], costs) if costs else "",
        )

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            **asdict(self),
            "gain": _interval_json(self.gain),
            "by_perspective": {n: _interval_json(one) for n, one in self.by_perspective.items()},
            "controls": {n: _interval_json(one) for n, one in self.controls.items()},
            "sentence": str(self),
        }


def verdict(
    model: TransformerBridge,
    learned: LearnedKinds,
    directions: Sequence[Direction],
    gated: Gated | None = None,
) -> Verdict:
    """Say what the first kind that was learned came to, beside all the others.

    Args:
        model: The language model.
        learned: What was learned.
        directions: The directions made of it.
        gated: Their gates; None where they have none.
    """
    [kind, *_] = learned.solutions
    solution = learned.solutions[kind]
    steers = solution.latents is not None or any(v.any() for v in solution.vectors.values())
    losses, alone = learned.losses[kind], False
    if gated is not None:
        steers, losses, alone = True, gated.gates.losses, not gated.gates.written.start
    names = learned.asked.perspectives
    rows = Counter(answer.perspective for answer in learned.asked.answers)
    others = [name for name in learned.losses if name != kind]
    if len(names) < 2:
        others = [name for name in others if name not in ("shuffled", "another's")]
    controls = {TITLES[name]: learned.gain(name) for name in others}
    controlled = np.isfinite(learned.losses["another's"])
    n_controlled = int(controlled.sum())
    if controls and n_controlled < np.isfinite(losses).sum():
        on_these = learned.gain_of(np.where(controlled, losses, np.nan))
        controls[f"the directions on the same {n_controlled} answers"] = on_these
    if gated is not None:
        controls["the same without a gate"] = learned.gain(kind)
    return Verdict(
        supported=solution.supported if gated is None else gated.supported,
        steers=steers,
        unsteered=learned.unsteered_loss,
        gain=learned.gain_of(losses),
        by_perspective={name: learned.gain_of(losses, name) for name in names},
        controls=controls,
        n_answers={name: rows[name] for name in names},
        n_controlled=n_controlled,
        n_latents=0
        if solution.latents is None or alone
        else max(len(sparse.ids) for sparse in solution.latents.values()),
        gate="" if gated is None else "writes alone" if alone else "weighs the direction",
        costs=_costs(model, directions) if steers else {},
        settings=asdict(learned.ridge),
    )


def _costs(model: TransformerBridge, directions: Sequence[Direction]) -> dict[str, Cost]:
    doses = relative_dose(model, directions)
    effects = side_effects(model, list(directions))
    texts = generate_branches(model, NEUTRAL_PROMPTS[:_N_TEXTS], directions, _WRITTEN)
    repeated = [
        sum(repetition(of_prompt[branch].tokens) for of_prompt in texts) / _N_TEXTS
        for branch in range(len(directions) + 1)
    ]
    return {
        direction.perspective: Cost(dose, one.kl, one.perplexity_ratio, rate, repeated[0])
        for direction, dose, one, rate in zip(directions, doses, effects, repeated[1:], strict=True)
    }


def _interval_json(gain: Interval | None) -> dict[str, float] | None:
    return None if gain is None else gain._asdict()
