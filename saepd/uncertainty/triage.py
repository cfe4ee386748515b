"""Which items need a person, in which order, and why: three reasons, each with its numbers.

The reasons are of different kinds and units, so an item's need is the mean of its ranks among the
items at hand. A model may be unsure (it ought to know better), perspectives may differ (people may
too), and an answer may be easily swayed (it is what it is by little).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from saepd.common.errors import InputError
from saepd.common.html import Html, bar, card, facts, note
from saepd.common.json_values import finite
from saepd.feedback.schema import Item
from saepd.uncertainty.assessment import Assessment

# Reason -> the scores it rests on; see `saepd.uncertainty.assessment.SCORES`.
REASONS = {
    "model unsure": ("entropy", "epistemic"),
    "perspectives differ": ("perspective_disagreement",),
    "easily swayed": ("ease_of_flip", "sway"),
}
UNREADABLE = "no readable answer"

# An item has a reason if it ranks among this share of the items by it.
_HIGH = 2 / 3


@dataclass(frozen=True)
class Triaged:
    """One item in its place among those that need a person.

    Attributes:
        rank: Place of the item, from 1 for the one that needs a person most.
        need: Mean rank over the reasons that are known, 0 to 1; 1 for what cannot be read.
        of_reason: Reason -> the item's rank by it, 0 to 1.
        reasons: The reasons that put the item here, strongest first; at least one.
        why: The reasons in a sentence, with numbers.
        assessment: All that is known about the item's answers.
    """

    rank: int
    need: float
    of_reason: Mapping[str, float]
    reasons: tuple[str, ...]
    why: str
    assessment: Assessment

    def _repr_html_(self) -> str:
        of_reason = {reason: bar(rank) for reason, rank in self.of_reason.items()}
        return card(
            f"{self.rank}. {self.assessment.item}",
            note(self.why),
            facts({"need": bar(self.need), **of_reason}),
            Html(self.assessment._repr_html_()),
        )


def triage_items(assessments: Sequence[Assessment], budget: int | None = None) -> list[Triaged]:
    """The items that need a person most, the neediest first.

    What the model gave no readable answer to comes first: nobody else can answer it. Items that are
    equally needy keep the order they come in.

    Args:
        assessments: From `saepd.assess`.
        budget: Number of items to list; all if None.

    Returns:
        The items with their need, from 0 to 1, and why each stands where it does.

    Raises:
        InputError: no items, or a budget below 1.
    """
    if not assessments:
        raise InputError("no items to triage: give at least one")
    if budget is not None and budget < 1:
        raise InputError(f"the budget is {budget}: a person must answer at least 1 question")
    ranks = reason_ranks([one.scores for one in assessments])
    need = needs(ranks)
    order = np.argsort(-need, kind="stable")[:budget]
    return [
        _triaged(place, assessments[i], float(need[i]), {k: float(r[i]) for k, r in ranks.items()})
        for place, i in enumerate(order, 1)
    ]


def reason_ranks(
    scores: Sequence[Mapping[str, float]],
) -> dict[str, Float[np.ndarray, " items"]]:
    """Reason -> rank of each item by it: 0 the least, 1 the most, ties in the middle.

    A reason's rank is the mean over its scores. NaN where none of them is known.
    """
    ranks: dict[str, Float[np.ndarray, " items"]] = {}
    for reason, names in REASONS.items():
        of_each = np.array([_ranks([one[name] for one in scores]) for name in names])
        known = np.isfinite(of_each)
        total = np.where(known, of_each, 0.0).sum(0)
        count = known.sum(0)
        ranks[reason] = np.divide(total, count, out=np.full(len(scores), np.nan), where=count > 0)
    return ranks


def needs(ranks: Mapping[str, Float[np.ndarray, " items"]]) -> Float[np.ndarray, " items"]:
    """Mean rank over the reasons that are known; 1 where none is."""
    columns = np.array(list(ranks.values()))
    known = np.isfinite(columns)
    count = known.sum(0)
    total = np.where(known, columns, 0.0).sum(0)
    return np.divide(total, count, out=np.ones(columns.shape[1]), where=count > 0)


def triage_dict(one: Triaged, item: Item) -> dict[str, Any]:
    """One item in its place as JSON values; what is undefined or infinite is None."""
    assessment = one.assessment
    names = assessment.names
    return {
        "rank": one.rank,
        "id": item.id,
        "prompt": item.prompt,
        "options": list(item.options),
        "need": one.need,
        "reasons": list(one.reasons),
        "why": one.why,
        "of_reason": {name: finite(value) for name, value in one.of_reason.items()},
        "scores": {name: finite(value) for name, value in assessment.scores.items()},
        "flip": {name: finite(value) for name, value in assessment.flip.items()},
        "answers": list(assessment.answers),
        "branches": {
            name: [finite(p) for p in row]
            for name, row in zip(names, assessment.branches.tolist(), strict=True)
        },
        "mass": {name: finite(m) for name, m in zip(names, assessment.mass, strict=True)},
        "warning": assessment.warning,
    }


def question_dict(item: Item, perspective: str) -> dict[str, Any]:
    """A row of feedback that lacks its answer, for a person to fill in."""
    return {
        "id": f"triage-{item.id}-{perspective}" if perspective else f"triage-{item.id}",
        "item": item.id,
        "perspective": perspective or None,
        "prompt": item.prompt,
        "options": list(item.options),
        "answer": None,
    }


def _triaged(rank: int, assessment: Assessment, need: float, ranks: Mapping[str, float]) -> Triaged:
    known = {name: value for name, value in ranks.items() if math.isfinite(value)}
    if not known:
        why = f"{UNREADABLE}: {assessment.warning}"
        return Triaged(rank, need, ranks, (UNREADABLE,), why, assessment)
    ordered = sorted(known, key=lambda name: -known[name])
    high = tuple(name for name in ordered if known[name] >= _HIGH) or (ordered[0],)
    why = "; ".join(f"{name} ({_WORDS[name](assessment)})" for name in high)
    if assessment.warning:
        why += f"; warning: {assessment.warning}"
    return Triaged(rank, need, ranks, high, why, assessment)


def _unsure(assessment: Assessment) -> str:
    answers, scores, base = assessment.answers, assessment.scores, assessment.branches[0]
    best = int(base.argmax())
    text = (
        f"best answer {answers[best]!r} at {base[best]:.2f}, entropy "
        f"{scores['entropy']:.2f} of {math.log(max(len(answers), 1)):.2f} nats"
    )
    if math.isfinite(scores["epistemic"]):
        text += f", {scores['epistemic']:.3f} nats of its answer follow one that is named"
    return text


def _differ(assessment: Assessment) -> str:
    # The answer on which two perspectives are furthest apart.
    perspectives, steered = assessment.names[1:], assessment.branches[1:]
    answer = int((steered.max(0) - steered.min(0)).argmax())
    high, low = int(steered[:, answer].argmax()), int(steered[:, answer].argmin())
    return (
        f"{assessment.scores['perspective_disagreement']:.4f} nats; "
        f"{assessment.answers[answer]!r}: "
        f"{perspectives[high]} {steered[high, answer]:.2f}, "
        f"{perspectives[low]} {steered[low, answer]:.2f}"
    )


def _swayed(assessment: Assessment) -> str:
    share, flip = assessment.scores["sway"], assessment.flip
    moved = f"directions move {share:.2f} of the probability within the KL budget"
    easiest = min(flip, key=lambda name: flip[name], default="")
    if not easiest or not math.isfinite(flip[easiest]):
        return f"{moved}, none flips the answer"
    return f"{easiest} flips the answer at {flip[easiest]:.2f} of the KL budget's coefficient"


_WORDS: dict[str, Callable[[Assessment], str]] = {
    "model unsure": _unsure,
    "perspectives differ": _differ,
    "easily swayed": _swayed,
}


def _ranks(values: Sequence[float]) -> Float[np.ndarray, " items"]:
    """Mean ranks scaled to 0..1; NaN stays NaN, and what is known alone ranks in the middle."""
    array = np.asarray(values, dtype=float)
    ranks = np.full(len(array), np.nan)
    known = np.isfinite(array)
    n = int(known.sum())
    ranks[known] = (rankdata(array[known]) - 1) / (n - 1) if n > 1 else 0.5
    return ranks
