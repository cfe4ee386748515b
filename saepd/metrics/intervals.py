"""How sure a number is: bootstrap over questions (Efron and Tibshirani 1993, chapter 13).

A draw is a weight for each row: how often its question was drawn. Rows of one question are drawn
together, because answers to the same question are not independent. A score gives one number a
draw, so that differences between methods are paired: they are taken draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from saepd.common.errors import InputError

DrawWeights: TypeAlias = Float[np.ndarray, "draws rows"]
PerDraw: TypeAlias = Float[np.ndarray, " draws"]
Metric: TypeAlias = Callable[..., float]

N_DRAWS = 1000
# With more undefined draws than this the rest no longer stands for the questions.
MAX_UNDEFINED_DRAWS = 0.1


class Interval(NamedTuple):
    """An estimate and the interval around it, in the unit of the score."""

    estimate: float
    low: float
    high: float


def draw_weights(questions: Sequence[object], seed: int, n_draws: int = N_DRAWS) -> DrawWeights:
    """How often each row counts in each draw of whole questions; the first draw is all rows once.

    A single question cannot be resampled: then there is the first draw alone.

    Args:
        questions: The question of each row.
        seed: Seed of the draws.
        n_draws: Draws beside the first.
    """
    number = {question: i for i, question in enumerate(dict.fromkeys(questions))}
    ids = np.array([number[question] for question in questions])
    everything = np.ones((1, len(ids)))
    if len(number) < 2:
        return everything
    drawn = np.random.default_rng(seed).integers(len(number), size=(n_draws, len(number)))
    counts = np.zeros((n_draws, len(number)))
    np.add.at(counts, (np.arange(n_draws)[:, None], drawn), 1)
    return np.concatenate([everything, counts[:, ids]])


def interval(per_draw: PerDraw, level: float = 0.95) -> Interval | None:
    """The interval of a score, from its value in each draw, the first being that of all rows.

    Draws in which the score is undefined are left out, so the interval is that of the draws in
    which it exists.

    Returns:
        None where the score of all rows is undefined, or that of more than a tenth of the draws.
    """
    estimate, draws = float(per_draw[0]), per_draw[1:]
    defined = draws[np.isfinite(draws)]
    enough = len(draws) and len(defined) >= (1 - MAX_UNDEFINED_DRAWS) * len(draws)
    if not np.isfinite(estimate) or not enough:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def resampled(metric: Metric, *columns: np.ndarray, weights: DrawWeights) -> PerDraw:
    """A score that takes no weights, such as AURC, computed anew on the rows of each draw.

    Args:
        metric: Takes the columns in the order given here.
        columns: Arrays with one row for each answer.
        weights: From `draw_weights`.

    Returns:
        The score of each draw; NaN where the metric refuses it with an InputError.
    """
    return np.array([_score(metric, columns, counts) for counts in weights])


def _score(metric: Metric, columns: Sequence[Any], counts: Float[np.ndarray, " rows"]) -> float:
    rows = np.repeat(np.arange(len(counts)), counts.astype(int))
    try:
        return float(metric(*(column[rows] for column in columns)))
    except InputError:
        return float("nan")
