"""Weights of a linear opinion pool that a population's answers decide (Stone 1961).

Each perspective's branch foretells answers, and the pool gives each a share of one distribution.
The shares that make a population's answers likeliest are found by expectation maximisation, as for
any mixture whose parts are fixed (Dempster et al. 1977). They are drawn to the shares that the
perspectives are known to have, as hard as cross-validation over questions asks for.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from saepd.common.checks import check_numbers
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.merge.accepting import as_tensor
from saepd.merge.config import PROBABILITY_TOLERANCE

Shares = Float[np.ndarray, " perspectives"]

# How many answers the given shares may be worth; infinitely many keep them.
_WORTH = (np.inf, 300.0, 100.0, 30.0, 10.0, 3.0)
_N_PARTS = 5
_MAX_STEPS = 2000
# Change of a weight below which a step is the last.
_ENOUGH = 1e-7


class _Answers(NamedTuple):
    """Options that were given as an answer, row by row.

    Attributes:
        probabilities: What each perspective gives the option.
        counts: How many people gave it.
        question: Number of the question.
    """

    probabilities: Float[np.ndarray, "rows perspectives"]
    counts: Float[np.ndarray, " rows"]
    question: Int[np.ndarray, " rows"]

    def only(self, chosen: np.ndarray) -> _Answers:
        return _Answers(*(column[chosen] for column in self))


def fit_merge_weights(
    log_probs: Sequence[Any],
    answers: Sequence[Any],
    questions: Sequence[Hashable],
    shares: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """The weights with which a mixture of perspectives' branches foretells a population's answers.

    The weights w are 0 or more and sum to 1. They maximise
    sum_i t_i . ln(sum_k w_k p_ik) + m sum_k s_k ln w_k: the log-likelihood of the answers t under
    the mixture of what the branches p say, with a Dirichlet prior at the shares s that is worth m
    answers. Of several m the largest is taken whose loss on answers to questions that were left out
    is within a standard error of the least. So the given shares stay where the answers do not ask
    for others, and where there are fewer than five questions.

    Args:
        log_probs: For each answer, log-probs of its question's options under every perspective, in
            nats: [perspectives, options]. The base model has no row.
        answers: How many people gave each option: one-hot, a distribution, or counts.
        questions: What was asked; answers to one question are left out together.
        shares: Share of each perspective in the population; equal ones if None.

    Returns:
        A weight for each perspective. The base counts for nothing in
        ``MergeConfig("weighted", weights=(0.0, *weights))``.

    Raises:
        InputError: no answers, rows that do not fit each other, values that are no log-probs or
            counts, or shares that do not sum to 1.
    """
    known = _checked(log_probs, answers, questions)
    n = known.probabilities.shape[1]
    given = np.full(n, 1 / n) if shares is None else _checked_shares(shares, n)
    n_questions = int(known.question.max()) + 1
    if n_questions < _N_PARTS:
        return tuple(given.tolist())
    losses = [_foretold(known, given, worth, n_questions) for worth in _WORTH]
    least = min(losses, key=lambda by_question: by_question.sum())
    simple_enough = (
        worth
        for worth, by_question in zip(_WORTH, losses, strict=True)
        if (by_question - least).sum() <= (by_question - least).std() * np.sqrt(n_questions)
    )
    return tuple(_fitted(known, given, next(simple_enough)).tolist())


def _foretold(
    known: _Answers, given: Shares, worth: float, n_questions: int
) -> Float[np.ndarray, " questions"]:
    """Loss of each question's answers under weights that have not seen them, nats."""
    losses = np.zeros(n_questions)
    for part in range(_N_PARTS):
        out = known.question % _N_PARTS == part
        weights, left = _fitted(known.only(~out), given, worth), known.only(out)
        lost = -left.counts * np.log(left.probabilities @ weights)
        np.add.at(losses, left.question, lost)
    return losses


def _fitted(known: _Answers, given: Shares, worth: float) -> Shares:
    if not np.isfinite(worth):
        return given
    weights, total = given, known.counts.sum() + worth
    for _ in range(_MAX_STEPS):
        joint = known.probabilities * weights
        responsible = joint / joint.sum(1, keepdims=True)
        updated = (known.counts @ responsible + worth * given) / total
        moved, weights = np.abs(updated - weights).max(), updated
        if moved < _ENOUGH:
            break
    return weights


def _checked(
    log_probs: Sequence[Any], answers: Sequence[Any], questions: Sequence[Hashable]
) -> _Answers:
    for what, given in (("log-probs", log_probs), ("answers", answers), ("questions", questions)):
        if not hasattr(given, "__len__"):
            raise InputError(f"{what} are {shortened(given)}: give a list, with a row an answer")
    if not len(log_probs) or not len(log_probs) == len(answers) == len(questions):
        raise InputError(
            f"there are {len(log_probs)} rows of log-probs, {len(answers)} of answers and "
            f"{len(questions)} questions: give equally many, at least one"
        )
    for question in questions:
        if not isinstance(question, Hashable):
            raise InputError(f"{shortened(question)} names no question: give its id")
    number = {question: i for i, question in enumerate(dict.fromkeys(questions))}
    rows = []
    for i, (branches, answer) in enumerate(zip(log_probs, answers, strict=True)):
        branch_log_probs = as_tensor(branches).double().cpu().numpy()
        counts = as_tensor(answer).double().cpu().numpy()
        if branch_log_probs.ndim != 2 or counts.shape != branch_log_probs.shape[1:]:
            raise InputError(
                f"row {i} has log-probs of shape {branch_log_probs.shape} and an answer of shape "
                f"{counts.shape}: expected [perspectives, options] and [options]"
            )
        if rows and len(branch_log_probs) != rows[0].probabilities.shape[1]:
            raise InputError(
                f"row {i} is of {len(branch_log_probs)} perspectives, and the first is not"
            )
        probabilities = np.exp(branch_log_probs)
        if not np.abs(probabilities.sum(1) - 1).max() <= PROBABILITY_TOLERANCE:
            raise InputError(f"row {i} holds no log-probs: apply log_softmax over the options")
        if not (counts >= 0).all() or not 0 < counts.sum() < np.inf:
            raise InputError(f"the answer of row {i} is {counts}: give how many chose each option")
        chosen = counts > 0
        # What no perspective allows would be lost under any weights.
        shown = np.maximum(probabilities.T[chosen], np.finfo(float).tiny)
        question = np.full(chosen.sum(), number[questions[i]])
        rows.append(_Answers(shown, counts[chosen], question))
    return _Answers(*map(np.concatenate, zip(*rows, strict=True)))


def _checked_shares(shares: Sequence[float], n: int) -> Shares:
    check_numbers("shares", shares, at_least=0)
    if len(shares) != n or abs(sum(shares) - 1) > PROBABILITY_TOLERANCE:
        raise InputError(f"shares are {tuple(shares)}: give one for each of {n}, summing to 1")
    return np.asarray(shares, dtype=float) / sum(shares)
