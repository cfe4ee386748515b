"""What a method has to beat: answers without the model, and the model without steering.

Each is given exactly the fold's feedback and no more. The strongest fit no content at all: a
temperature and a liking for positions on the list of options, which is most of what any adaptation
to a survey brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.special import softmax

from saepd.branches.run import score_continuations
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.targets import answered
from saepd.readout.calibrate import fit_temperature
from saepd.readout.softmax import SoftmaxWeights, fit_softmax, option_features

# Ridge on the biases, in nats of a row's mean loss per squared nat of bias. Chosen once, on
# GlobalOpinionQA: the fewer rows a bias is fitted on, the more it is held back.
OWN_RIDGE = 0.02
POOLED_RIDGE = 0.005
OFFSET_RIDGE = 0.1


def uniform(fold: Fold) -> Predictions:
    """The same probability for every option."""
    return fold.predict(lambda item, _: _even(item))


def train_mean(fold: Fold) -> Predictions:
    """Mean of the perspective's feedback on items with as many options."""
    return fold.predict(lambda item, name: _mean_answer(fold.rows(name), item))


def train_mean_pooled(fold: Fold) -> Predictions:
    """Mean of everybody's feedback on items with as many options."""

    return fold.predict(lambda item, _: _mean_answer(fold.feedback, item))


def zero_shot(fold: Fold) -> Predictions:
    """The base model's likelihood of each option's text."""
    return fold.predict(lambda item, _: softmax(fold.cache.text_scores[item.id]))


def zero_shot_persona(fold: Fold) -> Predictions:
    """The same likelihood, in the task's wording that asks for the answer of the perspective."""
    items = [fold.task.by_id[id_] for id_, _ in fold.asked]
    scored = score_continuations(
        fold.model,
        [
            fold.task.wording.persona_text(item.prompt, name)
            for item, (_, name) in zip(items, fold.asked, strict=True)
        ],
        [item.options for item in items],
        [],
    )
    return {
        pair: softmax(scores[0].double().numpy())
        for pair, (scores, _) in zip(fold.asked, scored, strict=True)
    }


def zero_shot_letters(fold: Fold) -> Predictions:
    """The base model's probability of each option's letter."""
    return fold.predict(lambda item, _: softmax(fold.cache.letter_scores[item.id]))


def zero_shot_letters_over_orders(fold: Fold) -> Predictions:
    """Letters again, averaged over the cyclic orders of the options."""
    return fold.predict(lambda item, _: softmax(fold.cache.letter_scores_over_orders[item.id]))


def contextual_calibration(fold: Fold) -> Predictions:
    """Text scores less their mean over the feedback's questions with the same options.

    After Zhao et al. 2021 (arXiv 2102.09690), with the questions of everybody's feedback in the
    place of an empty one; no answer is used. Options that fewer than two of these questions have
    keep their scores.
    """
    asked = {row.item: row.options for row in fold.feedback}
    groups: dict[tuple[str, ...], list[Options]] = {}
    for id_, options in asked.items():
        groups.setdefault(options, []).append(fold.cache.text_scores[id_])
    means = {options: np.mean(rows, axis=0) for options, rows in groups.items() if len(rows) > 1}
    return fold.predict(
        lambda item, _: softmax(fold.cache.text_scores[item.id] - means.get(item.options, 0.0))
    )


def temperature(fold: Fold) -> Predictions:
    """Text scores at the temperature that makes the perspective's feedback likeliest."""

    def fitted(rows: Sequence[Feedback]) -> float:
        scores = [torch.from_numpy(fold.cache.text_scores[row.item]) for row in rows]
        return fit_temperature(scores, fold.targets(rows))

    temperatures = {name: fitted(fold.rows(name)) for name in fold.perspectives}
    return fold.predict(
        lambda item, name: softmax(fold.cache.text_scores[item.id] / temperatures[name])
    )


def position_bias(fold: Fold) -> Predictions:
    """Text scores at a temperature plus a bias per option position, of the perspective's own."""
    return _predict_biased(fold, lambda name: fit_biases(fold, fold.rows(name), OWN_RIDGE))


def position_bias_pooled(fold: Fold) -> Predictions:
    """The same temperature and biases for all, fitted on everybody's feedback."""
    pooled = fit_biases(fold, fold.feedback, POOLED_RIDGE)
    return _predict_biased(fold, lambda _: pooled)


def position_bias_pooled_and_own(fold: Fold) -> Predictions:
    """Everybody's temperature and biases, and how the perspective's own differ from these."""
    pooled = fit_biases(fold, fold.feedback, POOLED_RIDGE)
    fit = partial(fit_biases, fold, ridge=OFFSET_RIDGE, start=pooled)
    return _predict_biased(fold, lambda name: fit(fold.rows(name)))


def fit_biases(
    fold: Fold,
    rows: Sequence[Feedback],
    ridge: float,
    start: SoftmaxWeights | None = None,
    scores: Mapping[str, Options] | None = None,
) -> SoftmaxWeights:
    """1/temperature, then nats for each position from the first option on, then for the last.

    The temperature is free. Biases are drawn to 0, or all weights to ``start``. The scores are the
    base model's, or of each row's item those that are given.
    """
    n_positions = max(map(len, fold.cache.text_scores.values()))
    scores = fold.cache.text_scores if scores is None else scores
    return fit_readout([scores[row.item] for row in rows], rows, ridge, n_positions, start)


def fit_readout(
    scores: Sequence[Options],
    rows: Sequence[Feedback],
    ridge: float,
    n_positions: int,
    start: SoftmaxWeights | None = None,
    offsets: Sequence[Options] | None = None,
) -> SoftmaxWeights:
    """`fit_biases` of scores that stand beside their rows.

    Args:
        scores: Log-likelihood of the options of each row's item, nats.
        rows: Feedback.
        ridge: Nats of a row's mean loss per squared nat of bias.
        n_positions: Options of the item that has most.
        start: Weights that the fitted ones are drawn to.
        offsets: What steering adds to the options' scores, nats; nothing if None.
    """
    features = [option_features(one, n_positions) for one in scores]
    penalty = np.full(n_positions + 2, 2 * ridge)
    if start is None:
        penalty[0] = 0.0
    targets = [answered(row) for row in rows]
    return fit_softmax(features, targets, penalty, offsets=offsets, start=start)


def read_biased(scores: Options, weights: SoftmaxWeights) -> Options:
    """Probabilities of options with the weights of `fit_biases`."""
    return softmax(option_features(scores, len(weights) - 2) @ weights)


def _even(item: Item) -> Options:
    return np.full(len(item.options), 1 / len(item.options))


def _mean_answer(rows: Sequence[Feedback], item: Item) -> Options:
    """Mean of the feedback on items with as many options as this one; uniform without any."""
    same = [answered(row) for row in rows if len(row.options) == len(item.options)]
    return np.mean(same, axis=0) if same else _even(item)


def _predict_biased(fold: Fold, fit: Callable[[str], SoftmaxWeights]) -> Predictions:
    weights: Mapping[str, SoftmaxWeights] = {name: fit(name) for name in fold.perspectives}
    return fold.predict(
        lambda item, name: read_biased(fold.cache.text_scores[item.id], weights[name])
    )
