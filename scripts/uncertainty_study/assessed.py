"""One draw's test items with every score of uncertainty, and one answer for all by every merge.

Here the perspectives' branches answer together: what is asked is whether the model as a whole is
right about what people say as a whole, and where it should not be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from saepd.directions.direction import Direction
from saepd.evaluation.fold import Fold, Options
from saepd.evaluation.methods.merged import merged
from saepd.evaluation.methods.steered import KL_BUDGET, branch_scores, fold_fit
from saepd.features.config import FeatureConfig
from saepd.feedback.schema import Item
from saepd.feedback.splits import question_key
from saepd.fit.budget import fit_kl_budget
from saepd.fit.config import FitConfig
from saepd.fit.controls import random_latents
from saepd.merge.config import MergeConfig
from saepd.models.wording import ReadoutConfig
from saepd.uncertainty.assessment import Assessment, assess
from saepd.uncertainty.config import AssessmentConfig
from saepd.uncertainty.reading import Reading, fit_reading

OPERATORS = ("pluralistic", "mixture", "product", "cad", "dcd", "saepd-released")
BASE, TEMPERATURE = "base", "temperature alone"
# What is behind the name of a merge of branches of random latents, and of tempered branches.
RANDOM, TEMPERED = ", random latents", ", at the temperature"
# Merges that are also made of branches of random latents.
_CONTROLLED = ("pluralistic", "mixture")


@dataclass(frozen=True)
class Assessed:
    """What is known about a draw's test items without their gold.

    Attributes:
        items: The test items, in the fold's order.
        questions: Of each item, a name that items with the same prompt share.
        assessments: Every score of each.
        answers: Method -> one distribution per item, for everybody.
        temperature: Fitted on everybody's feedback.
    """

    items: tuple[Item, ...]
    questions: tuple[str, ...]
    assessments: tuple[Assessment, ...]
    answers: dict[str, list[Options]]
    temperature: float


def assess_fold(fold: Fold) -> Assessed:
    """Score the test items and answer them by every merge.

    Directions are the chosen latents at the largest coefficient within the KL budget, and random
    ones likewise, so that both disturb the model equally. Options are read as the model scores
    them, with nothing fitted but a temperature.

    Raises:
        InputError: whatever `saepd.fit.recipe.fit_pairs` or `saepd.assess` refuses.
    """
    # Without other perspectives to differ from, a direction is what tells options apart.
    contrast = "others" if len(fold.perspectives) > 1 else "options"
    config = FitConfig(FeatureConfig(contrast=contrast))
    fit = fold_fit(fold, config)
    others = [random_latents(direction, fit.pairs, fold.seed) for direction in fit.directions]
    budgeted = fit_kl_budget(fold.model, [*fit.directions, *others], KL_BUDGET)
    chosen, random = budgeted[: len(others)], budgeted[len(others) :]
    items = tuple(fold.task.by_id[id_] for id_ in fold.test)
    settings = AssessmentConfig(
        readout=ReadoutConfig(template=fold.task.wording.plain), kl_budget=0.0
    )
    reading = fit_reading(fold.model, items, fold.feedback, settings.readout)
    assessments = assess(fold.model, items, chosen, reading, settings)
    answers = _answers(fold, items, chosen, reading, OPERATORS)
    controls = _answers(fold, items, random, reading, _CONTROLLED)
    for name in _CONTROLLED:
        for suffix in ("", TEMPERED):
            answers[f"{name}{RANDOM}{suffix}"] = controls[f"{name}{suffix}"]
    return Assessed(
        items,
        tuple(question_key(item.prompt) for item in items),
        tuple(assessments),
        answers,
        reading.temperature,
    )


def _answers(
    fold: Fold,
    items: Sequence[Item],
    directions: Sequence[Direction],
    reading: Reading,
    operators: Sequence[str],
) -> dict[str, list[Options]]:
    scores = branch_scores(fold, directions, fold.test)

    def log_probs(temperature: float) -> list[Float[np.ndarray, "branches options"]]:
        rows = [[softmax(row / temperature) for row in scores[item.id]] for item in items]
        return [np.log(np.maximum(branches, 1e-30)) for branches in rows]

    raw, tempered = log_probs(1.0), log_probs(reading.temperature)
    answers = {
        BASE: [np.exp(branches[0]) for branches in raw],
        TEMPERATURE: [np.exp(branches[0]) for branches in tempered],
    }
    for name in operators:
        config = MergeConfig(name, alpha=0.2) if name == "saepd-released" else MergeConfig(name)
        answers[name] = [merged(branches, config) for branches in raw]
        answers[name + TEMPERED] = [merged(branches, config) for branches in tempered]
    return answers
