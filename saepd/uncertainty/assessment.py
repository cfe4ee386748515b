"""Every measure of how sure a model is of its answers, for closed options and for free text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import bar, card, facts, note, table
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.direction import Direction
from saepd.feedback.accepting import as_items
from saepd.feedback.schema import Item
from saepd.fit.budget import fit_kl_budget
from saepd.merge.disagreement import (
    branch_disagreement,
    entropy,
    least_confidence,
    perspective_disagreement,
    small_margin,
)
from saepd.uncertainty.answers import Answers, answers_over_options, answers_over_samples
from saepd.uncertainty.asking_again import FREE_TEXT
from saepd.uncertainty.config import AssessmentConfig
from saepd.uncertainty.reading import Reading
from saepd.uncertainty.sway import Sway, sway

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

# Score -> what it is. Each is higher where the model is less sure.
SCORES = {
    "least_confidence": "1 less the largest probability",
    "least_confidence_scaled": "the same at the fitted temperature",
    "entropy": "entropy of the answers, nats",
    "small_margin": "1 less the gap between the two largest probabilities",
    "branch_disagreement": "Jensen-Shannon divergence of base and perspectives, nats",
    "perspective_disagreement": "Jensen-Shannon divergence of the perspectives alone, nats",
    "sway": "largest total variation that a direction causes within the KL budget",
    "ease_of_flip": "KL budget's coefficient over the smallest that flips the answer; 0 if none",
    "epistemic": "mutual information of a first and a second answer, nats",
}


@dataclass(frozen=True)
class Assessment:
    """What is known about one item's answers.

    Attributes:
        item: Id of the item.
        answers: Options of the item, or for free text one text of each cluster.
        names: Names of the branches: ``base``, then the perspectives.
        branches: Probability of each answer, at the reading's temperature; NaN if unreadable.
        mass: Probability that the options hold together in each branch; of free text, NaN.
        scores: Name of each score, as in `SCORES`, -> its value; NaN where it is undefined.
        flip: Perspective -> smallest multiple of the budget that flips the answer; inf if none.
        warning: Why not to trust the scores, or an empty string.
    """

    item: str
    answers: tuple[str, ...]
    names: tuple[str, ...]
    branches: Float[np.ndarray, "branches answers"]
    mass: Float[np.ndarray, " branches"]
    scores: Mapping[str, float]
    flip: Mapping[str, float]
    warning: str = ""

    def frame(self) -> pd.DataFrame:
        """One row for each branch and answer, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                {"item": self.item, "branch": name, "answer": answer, "probability": float(share)}
                for name, shares in zip(self.names, self.branches, strict=True)
                for answer, share in zip(self.answers, shares, strict=True)
            ]
        )

    def _repr_html_(self) -> str:
        rows = [
            [name, *map(bar, shares.tolist())]
            for name, shares in zip(self.names, self.branches, strict=True)
        ]
        flips = {f"flipped by {name} at": value for name, value in self.flip.items()}
        return card(
            f"item {self.item}",
            table(["branch", *self.answers], rows),
            facts({**self.scores, **flips}),
            note(self.warning) if self.warning else "",
        )


def assess(
    model: TransformerBridge,
    items: Item | Sequence[Item],
    directions: Directions = (),
    reading: Reading | None = None,
    config: AssessmentConfig | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Assessment]:
    """All scores of every item, with options or without.

    Args:
        model: The language model.
        items: What is asked; ids must differ.
        directions: One per perspective, or a fit; without any, only what the base model says is
            scored. A readout that was fitted with them reads the options, the base's too.
        reading: From `fit_reading`; raw probabilities by default.
        config: How options and free text are read, and how far directions may sway answers.
        progress: Called with what is being done, the step, and the number of steps.

    Returns:
        In the order of the items.

    Raises:
        InputError: no items, two with one id, or whatever a step refuses.
    """
    config, reading = config or AssessmentConfig(), reading or Reading()
    items = as_items(items)
    if not items:
        raise InputError("no items to assess: give at least one")
    if len({item.id for item in items}) < len(items):
        raise InputError("two items have the same id: give each its own")
    directions = as_directions(directions)
    report = progress or (lambda *_: None)
    report("finding the coefficients of the KL budget", 0, 3)
    budgeted = _within_budget(model, directions, config.kl_budget)
    report("reading answers", 1, 3)
    closed = [item for item in items if item.options]
    free = [item for item in items if not item.options]
    answers = answers_over_options(model, closed, directions, reading, config.readout)
    sampling = replace(FREE_TEXT, max_new_tokens=config.max_new_tokens, seed=config.seed)
    answers += answers_over_samples(
        model, free, directions, config.readout, config.epistemic, sampling
    )
    report("swaying answers", 2, 3)
    swayed = _sway(model, answers, budgeted)
    report("done", 3, 3)
    names = ("base", *(direction.perspective for direction in directions))
    by_id = {one.item.id: _assessment(one, swayed.get(one.item.id), names) for one in answers}
    return [by_id[item.id] for item in items]


def _within_budget(
    model: TransformerBridge, directions: Sequence[Direction], budget: float
) -> list[Direction]:
    """Directions at the coefficients of a KL budget, if there is one.

    What a fit writes nothing with, since the feedback did not support steering, stays as it is: no
    coefficient makes anything of it, and it sways no answer.
    """
    writing = [d for d in directions if not d.writes_nothing]
    if not writing or not budget:
        return list(directions)
    fitted = iter(fit_kl_budget(model, writing, budget))
    return [next(fitted) if d in writing else d for d in directions]


def _sway(
    model: TransformerBridge, answers: Sequence[Answers], budgeted: Sequence[Direction]
) -> dict[str, Sway]:
    """Item id -> sway, of the items that have answers to sway between."""
    several = [one for one in answers if one.readable and len(one.answers) > 1]
    if not budgeted or not several:
        return {}
    sways = sway(
        model,
        [one.prompt for one in several],
        [one.texts for one in several],
        budgeted,
        [
            lambda s, place, one=one: one.read(s, one.temperature, [place + 1] * len(s))
            for one in several
        ],
    )
    return {one.item.id: swayed for one, swayed in zip(several, sways, strict=True)}


def score_answers(
    raw: Float[Tensor, " answers"],
    branches: Float[Tensor, "branches answers"],
    swayed: Sway | None,
    epistemic: float,
) -> dict[str, float]:
    """Every name in `SCORES`, of an item with two answers or more; NaN where it is undefined.

    Args:
        raw: What the base says at temperature 1, log-probs in nats.
        branches: Log-probs of the base and every perspective, as they are read.
        swayed: By each direction; None where there are none.
        epistemic: Uncertainty of that name, nats.
    """
    scores = dict.fromkeys(SCORES, float("nan"))
    scores["least_confidence"] = float(least_confidence(raw))
    scores["least_confidence_scaled"] = float(least_confidence(branches[0]))
    scores["entropy"] = float(entropy(raw))
    scores["small_margin"] = float(small_margin(raw))
    if len(branches) > 1:
        scores["branch_disagreement"] = float(branch_disagreement(branches))
    if len(branches) > 2:
        scores["perspective_disagreement"] = float(perspective_disagreement(branches))
    if swayed is not None:
        scores["sway"] = float(swayed.moved.max())
        scores["ease_of_flip"] = swayed.ease
    scores["epistemic"] = epistemic
    return scores


def _defined(n_branches: int) -> list[str]:
    """Names of the scores that items have, whatever they answer: some ask for directions."""
    needed = {
        "branch_disagreement": 2,
        "perspective_disagreement": 3,
        "sway": 2,
        "ease_of_flip": 2,
    }
    return [name for name in SCORES if n_branches >= needed.get(name, 1)]


def _assessment(answers: Answers, swayed: Sway | None, names: tuple[str, ...]) -> Assessment:
    scores = dict.fromkeys(SCORES, float("nan"))
    warning, flip = answers.warning, {}
    if not answers.readable:
        branches = np.full((len(names), len(answers.answers)), np.nan)
        warning = warning or f"item {answers.item.id!r}: no answer has any probability"
    elif len(answers.answers) == 1:
        # Whatever was written says the same: there is nothing to be unsure of.
        branches = np.ones((len(names), 1))
        scores |= dict.fromkeys(_defined(len(names)), 0.0)
    else:
        rows = range(len(answers.scores))
        raw, log_probs = answers.read(answers.scores.double(), 1.0, rows)[0], answers.log_probs
        branches = log_probs.exp().numpy()
        scores = score_answers(raw, log_probs, swayed, answers.epistemic)
        if swayed is not None:
            flip = dict(zip(names[1:], swayed.flip.tolist(), strict=True))
    return Assessment(
        answers.item.id, answers.answers, names, branches, answers.mass, scores, flip, warning
    )
