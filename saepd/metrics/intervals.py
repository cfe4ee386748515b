"""How sure a number is: bootstrap over questions, of a mean or of any score of a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from saepd.common.errors import InputError
from saepd.metrics.distributions import finite

Column: TypeAlias = Sequence[Any] | np.ndarray
Metric: TypeAlias = Callable[..., float]

# With more undefined draws than this the rest no longer stands for the questions.
MAX_UNDEFINED_DRAWS = 0.1


class Interval(NamedTuple):
    """An estimate and the interval around it, in the unit of the values."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike,
    *,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over questions (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One finite number per answer, in any unit.
        questions: The question of each value, where one has several; whole questions are drawn
            then, because answers to the same question are not independent. None: each value is a
            question of its own.
        n: Draws.
        level: Coverage, in (0, 1).
        seed: Of the draws.

    Raises:
        InputError: a value is not finite, the question ids do not match the values, there are
            fewer than two questions, or n or level is out of range.
    """
    array = finite("values", values)
    ids = _ids(len(array), "values", questions)
    counts = np.bincount(ids)
    draws = _draws(len(counts), n, level, seed)
    sums = np.bincount(ids, weights=array)
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return _interval(float(array.mean()), means, level)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap of the mean of first - second, value by value on the same questions.

    Arguments and errors as ``bootstrap_interval``; the two must also be of one length.
    """
    a, b = finite("first", first), finite("second", second)
    if len(a) != len(b):
        raise InputError(f"first has {len(a)} values and second {len(b)}: they must be paired")
    return bootstrap_interval(a - b, questions=questions, n=n, level=level, seed=seed)


def bootstrap_metric(
    metric: Metric,
    *columns: Column,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a score that only a set has, such as macro-F1, AUROC or AURC.

    The score is computed anew on each draw of whole questions, by the draws of
    ``bootstrap_interval``: of a mean, both give the same interval. Draws in which the score is
    undefined (it raises an InputError, as AUROC does where one class is missing) are left out, so
    the interval is that of the draws in which it exists.

    Args:
        metric: Takes the columns in the order given here; ``functools.partial`` fixes
            its options.
        columns: One row per answer each: arrays, lists of labels, or distributions that differ in
            their number of options.
        questions: The question of each row; as in ``bootstrap_interval``.
        n: Draws.
        level: Coverage, in (0, 1).
        seed: Of the draws.

    Raises:
        InputError: the score refuses the whole set, more than a tenth of the draws are undefined,
            the columns differ in length, or whatever ``bootstrap_interval`` refuses.
    """
    return _bootstrap(metric, [columns], questions, n, level, seed)


def paired_metric_difference(
    metric: Metric,
    first: Sequence[Column],
    second: Sequence[Column],
    *,
    questions: Sequence[object] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap of metric(*first) - metric(*second), with the same questions in both of each draw.

    Args:
        metric: As in ``bootstrap_metric``.
        first: The columns of one method, row by row the same answers as those of the other.
        second: The columns of the other method.
        questions: The question of each row; as in ``bootstrap_interval``.
        n: Draws.
        level: Coverage, in (0, 1).
        seed: Of the draws.

    Raises:
        InputError: as ``bootstrap_metric``.
    """
    return _bootstrap(metric, [first, second], questions, n, level, seed)


def _bootstrap(
    metric: Metric,
    methods: Sequence[Sequence[Column]],
    questions: Sequence[object] | None,
    n: int,
    level: float,
    seed: int,
) -> Interval:
    """Of the score of one method, or of the difference between two."""
    tables = [[_column(values) for values in columns] for columns in methods]
    lengths = [len(column) for columns in tables for column in columns]
    if not lengths or len(set(lengths)) > 1:
        raise InputError(f"the columns have {lengths} rows: give columns of one length")
    ids = _ids(lengths[0], "rows", questions)
    members = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    draws = _draws(len(members), n, level, seed)

    def score(rows: Int[np.ndarray, " rows"]) -> float:
        values = [metric(*(column[rows] for column in columns)) for columns in tables]
        return float(values[0] - sum(values[1:]))

    estimate = score(np.arange(lengths[0]))
    found, reason = [], ""
    for draw in draws:
        try:
            found.append(score(np.concatenate([members[question] for question in draw])))
        except InputError as error:
            reason = str(error)
    undefined = 1 - len(found) / n
    if undefined > MAX_UNDEFINED_DRAWS:
        raise InputError(
            f"{undefined:.0%} of the draws have no score ({reason}): too few questions for it"
        )
    return _interval(estimate, np.array(found), level)


def _interval(estimate: float, found: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def _draws(n_questions: int, n: int, level: float, seed: int) -> Int[np.ndarray, "draws questions"]:
    if n < 1 or not 0 < level < 1:
        raise InputError(f"n is {n} and level is {level}: n must be positive, level in (0, 1)")
    if n_questions < 2:
        raise InputError(f"{n_questions} question(s): a bootstrap over questions needs two or more")
    return np.random.default_rng(seed).integers(n_questions, size=(n, n_questions))


def _ids(n: int, name: str, questions: Sequence[object] | None) -> Int[np.ndarray, " values"]:
    if questions is None:
        return np.arange(n)
    if len(questions) != n:
        raise InputError(f"there are {n} {name} but {len(questions)} question ids")
    number = {question: i for i, question in enumerate(dict.fromkeys(questions))}
    return np.array([number[question] for question in questions])


def _column(values: Column) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.asarray(values)
    except ValueError:  # distributions of different lengths
        ragged = np.empty(len(values), dtype=object)
        ragged[:] = list(values)
        return ragged
