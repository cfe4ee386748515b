"""What each chosen latent does to the answers when it is written alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, decoder_rows
from saepd.features.encode import Pairs
from saepd.features.select import Features
from saepd.feedback.targets import answered
from saepd.metrics.intervals import Interval, draw_weights, interval
from saepd.metrics.weighted import mean
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options
from saepd.saes.load import written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

# Questions that are asked at most: each costs a branch a latent.
_N_QUESTIONS = 24


class Alone(NamedTuple):
    """What writing one latent does to the answers.

    Attributes:
        gain: By how much the perspective's own answers become likelier, in nats an answer, with a
            95% interval over questions; None where nobody answered, or a single question.
        moved: Mean total variation distance between the answers with and without it.
    """

    gain: Interval | None
    moved: float

    def to_dict(self) -> dict[str, Any]:
        """Both as JSON values."""
        return {"gain": None if self.gain is None else self.gain._asdict(), "moved": self.moved}


def run_alone(
    model: TransformerBridge,
    sae: SAE[Any],
    pairs: Pairs,
    features: Sequence[Features],
    n: int,
    readout: ReadoutConfig,
) -> dict[tuple[str, int], Alone]:
    """Write each perspective's n strongest latents, each alone, and read the feedback's questions.

    A latent is written with its mean difference, at the positions ``answer``, and all latents of
    all perspectives run as branches of one pass. Of many questions, 24 evenly spaced ones are
    asked.

    Args:
        model: The language model.
        sae: The dictionary; it must be able to steer.
        pairs: The encoded feedback.
        features: The latents chosen for each perspective.
        n: How many of each are written.
        readout: How questions are asked.

    Returns:
        (perspective, latent) -> what it does; empty where no row has options.
    """
    rows = [row for row in pairs.rows if row.options and (row.answer or row.distribution)]
    items = {row.item: row.as_item() for row in rows}
    chosen = list(items.values())[:: -(-len(items) // _N_QUESTIONS)] if items else []
    if not chosen:
        return {}
    hook_name, keys, directions = written_site(sae), [], []
    for one in features:
        vectors = one.value[:n, None] * decoder_rows(sae, one.latents[:n]).cpu()
        for latent, vector in zip(one.latents[:n].tolist(), vectors, strict=True):
            keys.append((one.perspective, latent))
            name = f"{one.perspective}, latent {latent}"
            directions.append(Direction(name, hook_name, AddVector(vector)))
    scores = read_options(model, chosen, directions, readout)
    log_probs = {
        item.id: row.log_probs().double().numpy() for item, row in zip(chosen, scores, strict=True)
    }
    alone = {}
    for i, (perspective, latent) in enumerate(keys):
        shares = [np.exp(one[[0, i + 1]]) for one in log_probs.values()]
        moved = float(np.mean([0.5 * np.abs(base - written).sum() for base, written in shares]))
        own_rows = [r for r in rows if r.perspective == perspective and r.item in log_probs]
        gains = np.array([_gain(log_probs[r.item], i + 1, answered(r)) for r in own_rows])
        around = None
        if len(own_rows):
            around = interval(mean(gains, draw_weights([r.item for r in own_rows], 0)))
        alone[perspective, latent] = Alone(around, moved)
    return alone


def _gain(log_probs: np.ndarray, branch: int, answer: np.ndarray) -> float:
    return float((answer * (log_probs[branch] - log_probs[0])).sum())
