"""Option scores as probabilities that people's answers bear out: temperature and offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.readout.option_scores import OptionScores


def option_offsets(
    scores: Sequence[OptionScores], items: Sequence[Item]
) -> dict[tuple[str, ...], Float[Tensor, " options"]]:
    """How much the base model likes each option whatever is asked: its mean score over questions.

    Long or rare options score low for every question. Taking the mean off leaves what the
    question itself does (contextual calibration, Zhao et al. 2021, with other questions in the
    place of an empty one; no answer is needed for it). Only sets of options that at least two
    questions share have an offset.
    """
    groups: dict[tuple[str, ...], list[torch.Tensor]] = {}
    for item, row in zip(items, scores, strict=True):
        groups.setdefault(item.options, []).append(row.scores[0])
    return {options: torch.stack(g).mean(0) for options, g in groups.items() if len(g) > 1}


def fit_temperature(
    scores: Sequence[Float[Tensor, " options"]],
    targets: Sequence[Float[np.ndarray, " options"]],
) -> float:
    """Temperature that minimises cross-entropy to target distributions (Guo et al. 2017, sec. 4.2).

    Args:
        scores: Unnormalised log-probs of one branch, one row an answer.
        targets: What was answered: one-hot rows, or distributions.

    Raises:
        InputError: no rows, or rows that do not match.
    """
    if not scores or len(scores) != len(targets):
        raise InputError("a temperature needs as many target rows as score rows, at least one")
    bounds = (np.log(0.05), np.log(200.0))
    best: Any = minimize_scalar(
        lambda log_t: _cross_entropy(scores, targets, float(np.exp(log_t))),
        bounds=bounds,
        method="bounded",
    )
    return float(np.exp(best.x))


def _cross_entropy(
    scores: Sequence[Float[Tensor, " options"]],
    targets: Sequence[Float[np.ndarray, " options"]],
    temperature: float,
) -> float:
    """Mean cross-entropy of the temperature-scaled scores to the targets, in nats."""
    return float(
        np.mean(
            [
                -(y @ log_softmax(np.asarray(s, dtype=np.float64) / temperature))
                for s, y in zip(scores, targets, strict=True)
            ]
        )
    )
