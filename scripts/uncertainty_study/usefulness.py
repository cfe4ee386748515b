"""What each uncertainty score is good for: to find wrong answers, and to find divided people.

The two are different: one is the model's ignorance, the other real plurality. A score may serve
one and not the other, or neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from saepd.metrics import weighted
from saepd.metrics.distributions import finite
from saepd.metrics.intervals import PerDraw, draw_weights, interval, resampled
from saepd.metrics.selective import aurc, coverage_at_risk

RISKS = (0.05, 0.10)
# Draws for scores that are computed draw by draw.
_N_DRAWS = 500


def usefulness_rows(
    scores: Mapping[str, Float[np.ndarray, " questions"]],
    wrong: Bool[np.ndarray, " questions"],
    divided: Mapping[str, Float[np.ndarray, " questions"]],
    questions: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """One row per score: AUROC for errors and for divided people, AURC, coverage at 5% and 10%.

    Estimates come as [estimate, low, high] with 95% intervals; None where undefined, as where
    nobody disagrees. Questions whose score is NaN are left out of that score's row and counted.

    Args:
        scores: Score -> value per question, higher where less sure.
        wrong: Whether the model's answer is wrong.
        divided: Kind of human disagreement -> how much, per question; high is above its median.
        questions: Id of each question; equal ids are drawn together.
        seed: Of the bootstrap.

    Raises:
        InputError: a disagreement is not finite.
    """
    rows: list[dict[str, Any]] = []
    for name, values in scores.items():
        known = np.isfinite(values)
        row: dict[str, Any] = {
            "score": name,
            "n": int(known.sum()),
            "n_unscored": int((~known).sum()),
        }
        rows.append(row)
        if known.sum() < 2:
            continue
        uncertainty, lost = values[known], wrong[known].astype(float)
        ids = [question for question, kept in zip(questions, known, strict=True) if kept]
        weights, few = draw_weights(ids, seed), draw_weights(ids, seed, _N_DRAWS)
        row["auroc_error"] = _rounded_interval(weighted.auroc(uncertainty, wrong[known], weights))
        for kind, amounts in divided.items():
            high = (amounts > np.median(finite(kind, amounts)))[known]
            row[f"auroc_{kind}"] = _rounded_interval(weighted.auroc(uncertainty, high, weights))
        row["aurc"] = _rounded_interval(resampled(aurc, uncertainty, lost, weights=few))
        row["aurc_minus_random"] = _rounded_interval(
            resampled(_aurc_minus_random, uncertainty, lost, weights=few)
        )
        for risk in RISKS:
            covered = partial(coverage_at_risk, risk=risk)
            row[f"coverage_at_{risk:.0%}"] = _rounded_interval(
                resampled(covered, uncertainty, lost, weights=few)
            )
    return rows


def _aurc_minus_random(uncertainty: np.ndarray, losses: np.ndarray) -> float:
    """An order that knows nothing has the mean loss at every coverage."""
    return aurc(uncertainty, losses) - float(np.mean(losses))


def _rounded_interval(per_draw: PerDraw) -> list[float] | None:
    around = interval(per_draw)
    return None if around is None else [round(float(value), 4) for value in around]
