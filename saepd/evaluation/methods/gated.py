"""Gated directions: what the item's own latents say decides how much is written at the answer.

A direction that writes the same amount everywhere moves every item alike, so it cannot tell hateful
tweets from others. Here each perspective's gate reads the prompt and weighs the vector that moves
the options apart most: what `saepd fit --gate always` learns where all questions have the same
options, run and read as `saepd answer` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Reader
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.fit.asked import Pair, ask
from saepd.fit.config import LearningConfig
from saepd.fit.gating import contrast_gates, with_gates
from saepd.fit.gauss_newton import around_nothing, real_rows
from saepd.fit.penalised import Ridge, fit_readout
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options
from saepd.saes.load import sae_hook_name


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


def gated_branches(fold: Fold) -> Mapping[str, Direction]:
    """Perspective -> its gated direction, at coefficient 1."""
    return fold.once("gated", lambda: _learned(fold))


def _learned(fold: Fold) -> dict[str, Direction]:
    config, readout = LearningConfig(), ReadoutConfig(template=fold.task.wording.plain)
    hook_name, ridge = fold.cache.hook_name, Ridge(biases=0.01, own_readout=0.1)
    asked = ask(
        fold.model,
        fold.feedback,
        [hook_name],
        readout,
        DEFAULT_POSITIONS,
        lambda *_: None,
        readers=[Reader(sae_hook_name(fold.sae), fold.sae)],
    )
    around = around_nothing(asked, lambda *_: None)
    gates = contrast_gates(asked, around, ridge, config.n_folds, lambda *_: None)
    nothing: dict[Pair, Options] = {(q, None): 0 * scores for q, scores in asked.scores.items()}
    base = fit_readout(real_rows(asked, nothing), ridge).readout
    plain = [
        Direction(
            name,
            hook_name,
            AddVector(gates.written.vectors[name]),
            asked.positions,
            readout=FittedReadout(readout, base, base),
        )
        for name in asked.perspectives
    ]
    return {d.perspective: d for d in with_gates(plain, gates, fold.sae)}


def _predict(fold: Fold) -> Predictions:
    branches = gated_branches(fold)
    items = [fold.task.by_id[id_] for id_ in fold.test]
    read = read_options(fold.model, items, list(branches.values()))
    predictions = {
        (item.id, name): row.exp().double().cpu().numpy()
        for item, one in zip(items, read, strict=True)
        for name, row in zip(branches, one.log_probs()[1:], strict=True)
    }
    return {pair: predictions[pair] for pair in fold.asked}
