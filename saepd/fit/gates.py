"""Gates learned from feedback: how much of a direction an item gets, by what its prompt holds.

What is written is one vector times an amount that is linear in the item's reading
(`saepd.directions.gate`). Amounts are learned like vectors, as they will run (`saepd.fit.amounts`).

Four choices were made on HS-Brexit's development data. Latents enter by their square root, because
a mean over a prompt is dominated by the few that fire strongly. All of them are read: gates of few
latents ranked items worse. They are not brought to one standard deviation, which would make most of
those that hardly ever fire. And where a gate writes what no direction wrote before, only that is
read: the model's own leaning between the options, no better than chance there, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import orth

from saepd.directions.gate import Gate
from saepd.fit.amounts import GateLearner, Written, centred
from saepd.fit.asked import Asked, Effect, Pair, Report, Vector
from saepd.fit.penalised import Ridge
from saepd.fit.validate import Losses, really_foretold
from saepd.readout.softmax import SoftmaxWeights

if TYPE_CHECKING:
    from sae_lens import SAE

# How far beyond the amounts of the feedback a gate may go, as a share of their range.
_MARGIN = 0.5


@dataclass(frozen=True)
class LearnedGates:
    """What gates came to.

    Attributes:
        written: What the gates decide about.
        mean: Mean of the feedback's readings.
        weights: Perspective -> weight of each reading less that mean.
        limits: Perspective -> the smallest and the largest amount that is written.
        readout: Perspective -> weights of its readout, fitted under what is written.
        losses: Loss of each answer under gates that ran, its question not seen, in nats.
    """

    written: Written
    mean: Float[np.ndarray, " reading"]
    weights: Mapping[str, Float[np.ndarray, " reading"]]
    limits: Mapping[str, tuple[float, float]]
    readout: Mapping[str, SoftmaxWeights]
    losses: Losses

    def gate(self, perspective: str, hook_name: str, sae: SAE[Any] | None) -> Gate:
        """The gate of a perspective.

        Args:
            perspective: Name of the perspective.
            hook_name: The site that was read.
            sae: The dictionary that it was read with; None where the residual was.
        """
        return Gate(
            hook_name,
            torch.from_numpy(self.weights[perspective]),
            torch.from_numpy(self.mean),
            bias=self.written.start,
            sae=sae,
            limits=self.limits[perspective],
        )


def contrast(around: Mapping[Pair, Effect], asked: Asked) -> Vector:
    """The vector that moves options apart most, where all questions have the same options.

    It is the first principal axis of the options' mean gradients, raises the last option, and
    moves a question's options by one nat, root of the mean square over the answers.

    Args:
        around: What a little of each axis does to the options without steering.
        asked: The feedback.
    """
    slopes = np.stack([centred(around[row.question, None]) for row in asked.answers])
    axis = np.linalg.svd(slopes.mean(0), full_matrices=False)[2][0]
    axis = axis if slopes.mean(0)[-1] @ axis >= 0 else -axis
    return axis / (np.sqrt(np.mean(np.square(slopes @ axis))) or 1.0)


def learn_gates(
    asked: Asked,
    written: Written,
    first: Mapping[Pair, Effect],
    ridge: Ridge,
    parts: Sequence[set[str]],
    report: Report,
) -> LearnedGates:
    """Learn one gate for each perspective, and cross-validate them with real runs.

    Args:
        asked: The feedback, with readings.
        written: What the gates decide about.
        first: What a little of each axis does to the options without steering.
        ridge: Penalties, of which those of the readout are kept.
        parts: The questions that are held out together; see `saepd.fit.validate.folds`.
        report: Told what is being done.
    """
    readings = asked.readings
    seen = np.stack([readings[row.question] for row in asked.answers])
    mean = seen.mean(0)
    # A ridge over all readings never leaves the span of those it is fitted on, so it is the same
    # fit, and a small one, in coordinates of that span.
    axes = orth(np.stack([reading - mean for reading in readings.values()]).T)
    around_mean = {q: (reading - mean) @ axes for q, reading in readings.items()}
    learner = GateLearner(asked, around_mean, written, first)
    rows = learner.rows(dict.fromkeys(learner.pairs, written.start), written.moved)
    penalties, fits = learner.cross_validate(rows, ridge, parts)
    report("running gates that were learned without some of the questions", 0, 1)
    ran = [(fit, learner.vectors(learner.amounts(fit))) for fit in fits]
    held_out = really_foretold(asked, parts, {"gates": ran}, learner.readout_features())
    learned = learner.learn(rows, penalties)
    amounts = learner.amounts(learned)
    limits = {}
    for name in learned:
        its_amounts = [amount for (_, other), amount in amounts.items() if other == name]
        room = _MARGIN * (max(its_amounts) - min(its_amounts))
        limits[name] = (min(its_amounts) - room, max(its_amounts) + room)
    return LearnedGates(
        written=written,
        mean=mean,
        weights={name: axes @ part.values for name, part in learned.items()},
        limits=limits,
        readout={name: part.readout for name, part in learned.items()},
        losses=held_out["gates"],
    )
