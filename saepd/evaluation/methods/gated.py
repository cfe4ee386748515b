"""Gated directions: what the item's own latents say decides how much is written at the answer.

A direction that writes the same amount everywhere moves every item alike, so it cannot tell hateful
tweets from others. Here it reads at one place and writes at another: the amount is a linear
function of the SAE's latents, averaged over the prompt, and what is written is the vector that
raises the positive option most. The weights of the gate are scales like others, shared and own, and
are fitted like them (`saepd.fit.scales`).

Three choices were made on HS-Brexit's development data. Latents enter by their square root, because
a mean over a prompt is dominated by the few that fire strongly. All of them are read: gates of few
latents, chosen as in `fit_scales`, ranked items worse. And only what the direction changes is read:
the model's own leaning between the options, which is no better than chance there, is left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import orth
from scipy.special import softmax

from saepd.branches.run import score_continuations
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.feedback.schema import Feedback, Item
from saepd.fit.config import ScaleConfig
from saepd.fit.scales import Row, fit_scales
from saepd.readout.softmax import option_features

# How far the direction moves an option's log-likelihood when its first-order effect is read, nats.
_MOVE = 0.01
_SHARED = (0.0005, 0.002, 0.008, 0.03, 0.12)
_OWN = (0.002, 0.01, 0.04, 0.16, 1.0)


def gated_directions(fold: Fold) -> Predictions:
    """Amounts read from the item's own latents, written by a direction in the model."""
    return _predict(fold)


def gated_shuffled(fold: Fold) -> Predictions:
    """Control: gates fitted on feedback whose answers were dealt to other items."""
    order = np.random.default_rng(fold.seed).permutation(len(fold.feedback))
    dealt = [
        row.model_copy(
            update={
                "answer": fold.feedback[i].answer,
                "distribution": fold.feedback[i].distribution,
            }
        )
        for row, i in zip(fold.feedback, order, strict=True)
    ]
    return _predict(replace(fold, feedback=tuple(dealt)))


def _predict(fold: Fold) -> Predictions:
    effects = _effects(fold)
    gates = _gates(fold)
    n_positions = max(len(scores) for scores in fold.cache.text_scores.values())

    def positions(item: Item | Feedback) -> Float[np.ndarray, "options readout"]:
        return option_features(np.zeros(len(item.options)), n_positions)

    # A ridge over every latent only ever moves within the span of the items it is fitted on, so it
    # is the same fit, and a small one, in coordinates of that span.
    axes = orth(np.stack([gates[id_] for id_ in dict.fromkeys(r.item for r in fold.feedback)]).T)
    spanned = {id_: values @ axes for id_, values in gates.items()}
    rows = [
        Row(
            row.item,
            row.perspective,
            positions(row),
            np.outer(effects[row.item], spanned[row.item]),
            target,
        )
        for row, target in zip(fold.feedback, fold.targets(fold.feedback), strict=True)
    ]
    fitted = fit_scales(rows, ScaleConfig((axes.shape[1],), _SHARED, _OWN))

    def steered(item: Item, name: str) -> Options:
        amount = spanned[item.id] @ fitted.values[name]
        return softmax(positions(item) @ fitted.readout[name] + amount * effects[item.id])

    return fold.predict(steered)


def _effects(fold: Fold) -> dict[str, Options]:
    """What one unit of the written vector does to each option of each item, nats.

    Read in the steered model, at a coefficient at which effects are of first order.
    """
    ids = list(dict.fromkeys([*(row.item for row in fold.feedback), *fold.test]))
    slopes = []
    for row in fold.feedback:
        gradients = fold.cache.gradients[row.item].astype(np.float64)
        slopes.append((gradients - gradients.mean(0))[row.options.index(fold.task.positive)])
    vector = np.mean(slopes, axis=0)
    vector /= np.linalg.norm(vector)
    coefficient = float(_MOVE / np.sqrt(np.mean(np.square(np.stack(slopes) @ vector))))
    direction = Direction(
        "written",
        fold.cache.hook_name,
        AddVector(torch.from_numpy(vector)),
        coefficient=coefficient,
    )
    items = [fold.task.by_id[id_] for id_ in ids]
    scored = score_continuations(
        fold.model,
        [fold.cache.prompt(item) for item in items],
        [item.options for item in items],
        [direction],
    )
    moved = {}
    for item, (scores, _) in zip(items, scored, strict=True):
        effect = (scores[1] - scores[0]).double().numpy() / coefficient
        moved[item.id] = effect - effect.mean()
    return moved


def _gates(fold: Fold) -> dict[str, Float[np.ndarray, " latents"]]:
    """Roots of each item's latents, mean over its prompt, standardised over the feedback's."""
    roots = {id_: np.sqrt(np.maximum(values, 0)) for id_, values in fold.cache.latents.items()}
    seen = np.stack([roots[row.item] for row in fold.feedback])
    mean, spread = seen.mean(0), seen.std(0)
    fires = spread > 0
    return {id_: (values - mean)[fires] / spread[fires] for id_, values in roots.items()}
