"""Scores of all draws of a bootstrap at once, which a table of many rows needs.

Each takes a weight per draw and row (`saepd.metrics.intervals.draw_weights`) and gives one number a
draw: what its namesake in `classification` or `calibration` gives for the rows of that draw.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from saepd.metrics.intervals import DrawWeights, PerDraw


def mean(values: Float[np.ndarray, " rows"], weights: DrawWeights) -> PerDraw:
    """Mean of one value a row."""
    return weights @ values / weights.sum(1)


def auroc(
    scores: Float[np.ndarray, " rows"], positive: Bool[np.ndarray, " rows"], weights: DrawWeights
) -> PerDraw:
    """As `saepd.metrics.classification.auroc`; NaN in a draw that lacks one class."""
    order = np.argsort(scores, kind="stable")
    ranked, up = scores[order], weights[:, order] * positive[order]
    down = weights[:, order] * ~positive[order]
    # Negatives below a score, and half of those that tie with it.
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    up, down = np.add.reduceat(up, starts, axis=1), np.add.reduceat(down, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    pairs = up.sum(1) * down.sum(1)
    return np.divide((up * below).sum(1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def auroc_within(
    groups: Sequence[Hashable],
    scores: Float[np.ndarray, " rows"],
    positive: Bool[np.ndarray, " rows"],
    weights: DrawWeights,
) -> PerDraw:
    """Mean AUROC within the groups that have both classes; NaN in a draw where none has."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    aurocs = np.array([auroc(scores[m], positive[m], weights[:, m]) for m in members.values()])
    defined = np.isfinite(aurocs)
    count = defined.sum(0)
    total = np.where(defined, aurocs, 0.0).sum(0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def macro_f1(
    chosen: Bool[np.ndarray, " rows"], positive: Bool[np.ndarray, " rows"], weights: DrawWeights
) -> PerDraw:
    """Mean F1 of the positive and the negative class; NaN in a draw that lacks one class."""
    of_each: list[PerDraw] = []
    for predicted, label in ((chosen, positive), (~chosen, ~positive)):
        both, either = weights @ (predicted & label), weights @ (predicted + label.astype(float))
        of_each.append(np.divide(2 * both, either, out=np.zeros(len(both)), where=either > 0))
    present = (weights @ positive > 0) & (weights @ ~positive > 0)
    return np.where(present, np.mean(of_each, axis=0), np.nan)


def expected_calibration_error(
    bins: Int[np.ndarray, " rows"], gaps: Float[np.ndarray, " rows"], weights: DrawWeights
) -> PerDraw:
    """As `saepd.metrics.calibration.expected_calibration_error`, in bins that all draws share.

    Args:
        bins: From `saepd.metrics.calibration.confidence_bins`.
        gaps: Accuracy of each row, 1 where its answer is right, less its confidence.
        weights: From `draw_weights`.
    """
    in_bin = np.eye(int(bins.max()) + 1)[bins]
    return np.abs(weights @ (in_bin * gaps[:, None])).sum(1) / weights.sum(1)
