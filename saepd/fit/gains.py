"""What one way of foretelling answers gains over another, and when that counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from saepd.fit.asked import Asked
from saepd.fit.penalised import Ridge
from saepd.fit.validate import Losses
from saepd.metrics.intervals import draw_weights
from saepd.metrics.weighted import mean

# Nats an answer: no smaller gain is worth a direction or a gate, however sure it is.
_WORTH = 1e-3


def gains(
    asked: Asked, gained: Losses, perspective: str | None = None
) -> Float[np.ndarray, " draws"]:
    """Mean of what answers gained, in each bootstrap draw of questions, the first of all of them.

    Args:
        asked: The feedback.
        gained: What each answer gained, nats; NaN where that is not known.
        perspective: Name of the perspective whose answers count; everybody's if None.
    """
    chosen = [
        i
        for i, row in enumerate(asked.answers)
        if perspective in (None, row.perspective) and np.isfinite(gained[i])
    ]
    wordings = [asked.wordings[asked.answers[i].question] for i in chosen]
    return mean(gained[chosen], draw_weights(wordings, seed=0))


def is_gain(gained: Float[np.ndarray, " draws"]) -> bool:
    """Whether the first of the gains is more than their standard error, and worth having."""
    return len(gained) > 1 and bool(gained[0] > max(gained[1:].std(), _WORTH))


def first_as_good(
    asked: Asked, losses: Mapping[Ridge, Losses], than: Losses | None = None
) -> Ridge:
    """The first of some penalties whose losses are within a standard error of the least.

    Args:
        asked: The feedback.
        losses: Penalties -> loss of each answer, its question not seen, in nats.
        than: Losses that it must be a gain over too; where none is, it is the best.
    """
    best = min(losses, key=lambda ridge: float(np.nanmean(losses[ridge])))
    for ridge, its_losses in losses.items():
        lost = gains(asked, its_losses - losses[best])
        is_as_good = len(lost) < 2 or lost[0] <= lost[1:].std()
        if is_as_good and (than is None or is_gain(gains(asked, than - its_losses))):
            return ridge
    return best
