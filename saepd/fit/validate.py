"""Cross-validation over the feedback's questions: how well vectors foretell answers not yet seen.

Readout, vectors and choice of latents are fitted to the questions of all folds but one, and the
answers to the others are foretold: to first order around what all feedback taught, for comparing
many settings, and with vectors that really run, for the settings that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.fit.asked import Asked, Pair, ReadoutFeatures, Vector
from saepd.fit.gauss_newton import real_rows
from saepd.fit.learnable import check_questions
from saepd.fit.penalised import Part, Row, losses

Losses: TypeAlias = Float[np.ndarray, " answers"]
# From rows that are seen to each perspective's part.
Fit: TypeAlias = Callable[[Sequence[Row]], Mapping[str, Part]]


def folds(asked: Asked, n: int) -> list[set[str]]:
    """Questions in ``n`` parts, or one each if there are fewer.

    What is asked in the same words stays together.

    Each question goes to the part in which those who answered it have answered least, so each
    perspective's answers are spread over the parts whoever was asked what.

    Raises:
        InputError: there are fewer than five questions and fewer than parts, or no perspective has
            answered more than one question.
    """
    answerers: dict[str, list[str]] = {wording: [] for wording in asked.wordings.values()}
    for row in asked.answers:
        answerers[asked.wordings[row.question]].append(row.perspective)
    check_questions(len(answerers), n)
    n = min(n, len(answerers))
    answered: list[Counter[str]] = [Counter() for _ in range(n)]
    part = {}
    for wording in sorted(answerers):
        part[wording] = min(
            range(n),
            key=lambda i: (
                sum(answered[i][name] for name in answerers[wording]),
                answered[i].total(),
            ),
        )
        answered[part[wording]].update(answerers[wording])
    if sum(map(len, answered)) == len(asked.perspectives):
        raise InputError(
            "each perspective has answered one question only, so none of its answers can be "
            "foretold from its others: give more answers of each, or fit differences of means "
            "(--method differences)"
        )
    return [{q for q, wording in asked.wordings.items() if part[wording] == i} for i in range(n)]


def some_answers(asked: Asked, parts: Sequence[set[str]], n: int) -> set[Pair]:
    """At most ``n`` answers, the same every time: as many of each perspective and part as can be.

    Args:
        asked: The feedback.
        parts: From `folds`.
        n: How many are wanted.
    """
    of_part = {question: i for i, part in enumerate(parts) for question in part}
    pairs = list(dict.fromkeys((row.question, row.perspective) for row in asked.answers))
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs)).tolist()]
    before: Counter[tuple[str, int]] = Counter()
    rank = {}
    for question, name in shuffled:
        rank[question, name] = before[name, of_part[question]]
        before[name, of_part[question]] += 1
    return set(sorted(shuffled, key=lambda pair: rank[pair])[:n])


def fitted_without(
    rows: Sequence[Row], parts: Sequence[set[str]], fit: Fit
) -> list[Mapping[str, Part]]:
    """What is fitted to all questions but those of each part."""
    return [fit([row for row in rows if row.question not in part]) for part in parts]


def foretold(
    rows: Sequence[Row], parts: Sequence[set[str]], fits: Sequence[Mapping[str, Part]]
) -> Losses:
    """Loss of each answer under the fit that has not seen its question, in nats.

    NaN for the answers of a perspective that has no others.
    """
    loss = np.full(len(rows), np.nan)
    for part, fit in zip(parts, fits, strict=True):
        held_out = [i for i, r in enumerate(rows) if r.question in part and r.perspective in fit]
        if held_out:
            loss[held_out] = losses([rows[i] for i in held_out], fit)
    return loss


def really_foretold(
    asked: Asked,
    parts: Sequence[set[str]],
    settings: Mapping[str, Sequence[tuple[Mapping[str, Part], Mapping[Pair, Vector]]]],
    readout: ReadoutFeatures | None = None,
) -> dict[str, Losses]:
    """`foretold` with vectors that run, for several settings in one pass.

    Args:
        asked: The feedback.
        parts: From `folds`.
        settings: Name -> for each fold, the parts (of which the readouts count), and the vectors
            that are written.
        readout: What readouts weigh of each question; `Asked.readout_features` if None.
    """
    of_part = {question: i for i, part in enumerate(parts) for question in part}
    runs: list[dict[Pair, Vector]] = []
    for fits in settings.values():
        pairs: dict[Pair, Vector] = {}
        for question, name, _ in asked.answers:
            vectors = fits[of_part[question]][1]
            if (question, name) in vectors:
                pairs[question, name] = vectors[question, name]
        runs.append(pairs)
    loss_by_setting = {}
    for (setting, fits), moved in zip(settings.items(), asked.moved(*runs), strict=True):
        is_known = [(row.question, row.perspective) in moved for row in asked.answers]
        known = replace(
            asked,
            answers=[row for row, has_run in zip(asked.answers, is_known, strict=True) if has_run],
        )
        plain = [
            {name: Part(part.readout, part.values[:0]) for name, part in fit.items()}
            for fit, _ in fits
        ]
        loss = np.full(len(asked.answers), np.nan)
        loss[is_known] = foretold(real_rows(known, moved, readout), parts, plain)
        loss_by_setting[setting] = loss
    return loss_by_setting
