"""What asking people is worth, and whether triage asks about the right items first.

A person answers some items, the model the others. The person was not among those whose feedback
steered the model, and is not among those whose answers count as true, so that a person may be
"wrong" too. An order of asking is as good as the error that is left after each question.

Items of equal uncertainty come in random order, and the expectation is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from saepd.metrics.distributions import finite, same_length
from saepd.metrics.intervals import draw_weights, interval, resampled

# Shares of the items that are asked about, at which the table tells the error.
SHARES = (0.1, 0.25, 0.5)
_N_DRAWS = 500

Losses = Float[np.ndarray, " items"]


def error_curve(
    uncertainty: Losses, unasked: Losses, asked: Losses
) -> Float[np.ndarray, " questions"]:
    """Mean loss over all items after 0, 1, ... all questions, the most uncertain asked first.

    Args:
        uncertainty: One per item, higher where a person should look first; the same everywhere for
            random order.
        unasked: Loss of each item while the model answers it.
        asked: Loss of each item once a person has.

    Raises:
        InputError: a value is not finite, or the columns differ in length.
    """
    values = finite("uncertainty", uncertainty)
    gain = finite("unasked", unasked) - finite("asked", asked)
    same_length(uncertainty=values, unasked=unasked, asked=asked)
    _, group, count = np.unique(-values, return_inverse=True, return_counts=True)
    # In random order each place of a tie holds, in expectation, the mean gain of the tie.
    expected = np.repeat(np.bincount(group, weights=gain) / count, count)
    saved = np.concatenate([[0.0], np.cumsum(expected)])
    return float(np.mean(unasked)) - saved / len(values)


def saved_over_random(uncertainty: Losses, unasked: Losses, asked: Losses) -> float:
    """How much lower the error is than in random order, mean over 0, 1, ... all questions."""
    constant = np.zeros(len(uncertainty))
    random = error_curve(constant, unasked, asked)
    return float(np.mean(random - error_curve(uncertainty, unasked, asked)))


def simulation_rows(
    orders: Mapping[str, Losses],
    unasked: Losses,
    asked: Losses,
    questions: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """One row per order: the error after some shares of the questions, and what it saves.

    Args:
        orders: Name -> uncertainty of each item; NaN is asked first.
        unasked: Loss of each item while the model answers it.
        asked: Loss of each item once a person has.
        questions: Id of each item's question; equal ones are drawn together in the bootstrap.
        seed: Of the bootstrap.
    """
    weights = draw_weights(questions, seed, _N_DRAWS)
    rows: list[dict[str, Any]] = []
    for name, values in orders.items():
        order = np.where(np.isfinite(values), values, np.inf)
        # `error_curve` wants numbers: only the order counts.
        _, ranks = np.unique(order, return_inverse=True)
        uncertainty = ranks.astype(float)
        curve = error_curve(uncertainty, unasked, asked)
        row: dict[str, Any] = {"order": name, "n": len(uncertainty)}
        for share in SHARES:
            row[f"error_at_{share:.0%}"] = round(float(curve[round(share * len(uncertainty))]), 4)
        saved = interval(resampled(saved_over_random, uncertainty, unasked, asked, weights=weights))
        row["saved_over_random"] = saved and [round(float(value), 4) for value in saved]
        rows.append(row)
    return rows


def learning_curve(
    order: Int[np.ndarray, " items"],
    asked: Losses,
    losses_after: Callable[[Sequence[int]], Losses],
    batch: int,
) -> Float[np.ndarray, " rounds"]:
    """Mean loss over all items after 0, 1, ... batches of questions, the model learning from each.

    Args:
        order: Items in the order of asking.
        asked: Loss of each item once a person has answered it.
        losses_after: From the items that have been answered to the model's loss on every item,
            having learned from these answers.
        batch: Questions that are asked before the model learns from the answers.
    """
    mean_losses: list[float] = []
    for n in range(0, len(order) + 1, batch):
        known = order[:n].tolist()
        losses = np.array(losses_after(known), dtype=float)
        losses[known] = asked[known]
        mean_losses.append(float(losses.mean()))
    return np.array(mean_losses)
