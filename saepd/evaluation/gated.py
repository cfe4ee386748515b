"""Gated directions: what the item's own latents say decides how much is written at the answer.

A direction that writes the same amount everywhere moves every item alike, so it cannot tell hateful
tweets from others. Here it reads at one place and writes at another: the amount is a linear
function of the SAE's latents, averaged over the prompt, and what is written is the vector that
raises the positive option most. The weights of the gate are scales like others, and are fitted like
them (`saepd.fitted_scales`), on few chosen latents or on all, whichever cross-validates better.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from saepd.branches import score_continuations
from saepd.directions import Direction
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.item_cache import ByItem
from saepd.evaluation.nulls import option_features
from saepd.fitted_scales import FittedScales, Row, ScaleConfig, fit_scales
from saepd.schema import Item
from saepd.softmax_fit import softmax

# How far the direction moves an option's log-likelihood when its first-order effect is read, nats.
_MOVE = 0.01
_SPARSE = ScaleConfig(n_latents=(32, 128, 512), shared=(0.002, 0.008, 0.03), own=(0.01, 0.04, 0.16))
_DENSE = ScaleConfig(shared=(0.0005, 0.002, 0.008, 0.03, 0.12), own=(0.002, 0.01, 0.04, 0.16))


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
    from scipy.linalg import orth

    effects = _effects(fold)
    gates = _gates(fold)
    n_positions = max(len(scores) for scores in fold.cache.text_scores.values())

    def seen(id_: str) -> Float[np.ndarray, "options readout"]:
        return option_features(fold.cache.text_scores[id_], n_positions)

    def fit(inputs: ByItem, config: ScaleConfig) -> FittedScales:
        rows = [
            Row(
                row.item,
                row.perspective,
                seen(row.item),
                np.outer(effects[row.item], inputs[row.item]),
                target,
            )
            for row, target in zip(fold.feedback, fold.targets(fold.feedback), strict=True)
        ]
        return fit_scales(rows, config)

    # A ridge over every latent only ever moves within the span of the items it is fitted on, so it
    # is the same fit, and a small one, in coordinates of that span.
    seen_gates = np.stack([gates[id_] for id_ in dict.fromkeys(r.item for r in fold.feedback)])
    axes = orth(seen_gates.T)
    spanned = {id_: values @ axes for id_, values in gates.items()}
    few, all_ = fit(gates, _SPARSE), fit(spanned, replace(_DENSE, n_latents=(axes.shape[1],)))
    sparse = min(few.loss.values()) <= min(all_.loss.values())
    fitted, inputs = (few, gates) if sparse else (all_, spanned)

    def steered(item: Item, name: str) -> Options:
        amount = inputs[item.id][fitted.units] @ fitted.values[name]
        return softmax(seen(item.id) @ fitted.readout[name] + amount * effects[item.id])

    return fold.predict(steered)


def _effects(fold: Fold) -> dict[str, Options]:
    """What one unit of the written vector does to each option of each item, nats.

    Read in the steered model, at a coefficient at which effects are of first order.
    """
    import torch

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
        coefficient=coefficient,
        vector=torch.from_numpy(vector).float(),
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
    """Each item's latents, mean over its prompt, standardised over the feedback's items."""
    seen = np.stack([fold.cache.latents[row.item] for row in fold.feedback])
    mean, spread = seen.mean(0), seen.std(0)
    fires = spread > 0
    return {
        id_: (values - mean)[fires] / spread[fires] for id_, values in fold.cache.latents.items()
    }
