"""Hold out whole questions, fit on little feedback, compare every method with what people said.

The questions are split into folds. For each fold, 50 answers per perspective are drawn from the
questions of the other folds; every method sees these and nothing else; all of them predict the
fold's questions. So each question is predicted once, by methods that never saw it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.evaluation.methods.baselines import few_shot_scores, train_mean, uniform
from saepd.features.encode import encode_pairs
from saepd.feedback.sample import sample_feedback
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.survey import folds
from saepd.feedback.targets import answered
from saepd.fit.config import FitConfig
from saepd.fit.controls import dense_difference, random_latents
from saepd.fit.recipe import Fit, fit_pairs, scaled_to_config
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import (
    OptionScores,
    centred,
    cross_entropy,
    fit_temperature,
    option_offsets,
    read_options,
)

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

# The perspective of results over all perspectives.
EVERYBODY = "all"

MERGED = ("pluralistic", "mixture", "product")
METHODS = (
    "uniform",
    "train-mean",
    "zero-shot",
    "zero-shot, centred",
    "few-shot prompt",
    "dense difference in means",
    "random latents",
    "SAE directions",
    *MERGED,
)

Distribution = Float[np.ndarray, " options"]


@dataclass(frozen=True)
class ExperimentConfig:
    """What is held out, how much feedback the methods see, and how they use it.

    Attributes:
        n_feedback: Feedback rows per perspective.
        n_folds: Parts the questions are split into; each is held out once.
        seed: Of the folds, the draw of the feedback and the random controls.
        few_shot_tokens: Most tokens of examples in the few-shot prompt.
        coefficients: Multiples at which every direction is tried; each perspective uses the one
            that makes its feedback most probable. A single one is used as it is.
        fit: From feedback to directions.
        merge: The pluralistic merge; the other merges take its alpha and tau.
    """

    n_feedback: int = 50
    n_folds: int = 5
    seed: int = 0
    few_shot_tokens: int = 512
    coefficients: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    fit: FitConfig = field(default_factory=FitConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)

    def __post_init__(self) -> None:
        if not self.coefficients or not all(0 < c < math.inf for c in self.coefficients):
            raise InputError(
                f"the coefficients are {self.coefficients}: give at least one, all positive"
            )


@dataclass(frozen=True)
class Prediction:
    """One method's answer to one held-out question, for one perspective."""

    method: str
    perspective: str
    item: Item
    predicted: Distribution
    gold: Distribution


@dataclass(frozen=True)
class Example:
    """One held-out question in full: what each branch says, and what people said."""

    item: Item
    branches: dict[str, Distribution]
    merged: Distribution
    gold: dict[str, Distribution]


@dataclass(frozen=True)
class Outcome:
    """All predictions, and of the first fold the fit and an example."""

    predictions: list[Prediction]
    fit: Fit
    example: Example
    n_few_shot: list[int]
    warnings: list[str]


def run_experiment(
    model: TransformerBridge,
    sae: SAE[Any],
    items: Sequence[Item],
    feedback: Sequence[Feedback],
    config: ExperimentConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> Outcome:
    """Cross-validate every method over whole questions.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        items: Questions with gold distributions.
        feedback: Answers, many more than are drawn.
        config: Settings.
        progress: Called with what is being done, the step, and the number of steps.

    Raises:
        InputError: too little feedback, or whatever a step refuses.
    """
    known = {item.id for item in items}
    for row in feedback:
        if row.item not in known:
            raise InputError(f"feedback {row.id!r} is on {row.item!r}, which is no item here")
        if row.perspective == EVERYBODY:
            raise InputError(
                f"a perspective is called {EVERYBODY!r}, which stands for all of them in the "
                "results: rename it"
            )
    parts = folds(items, config.n_folds, config.seed)
    perspectives = list(dict.fromkeys(row.perspective for row in feedback))
    drawn = [
        sample_feedback(
            [row for row in feedback if row.item not in held_out],
            config.n_feedback,
            config.seed + number,
            perspectives,
        )
        for number, held_out in enumerate(map(set, parts))
    ]
    report = progress or (lambda *_: None)
    n_steps = 1 + 2 * len(parts)
    report("encoding feedback", 0, n_steps)
    everything = list({row.id: row for rows in drawn for row in rows}.values())
    pairs = encode_pairs(model, sae, everything, config.fit.features, config.fit.readout)
    predictions: list[Prediction] = []
    warnings: list[str] = []
    n_few_shot: list[int] = []
    first: tuple[Fit, Example] | None = None
    for number, (rows, held_out) in enumerate(zip(drawn, parts, strict=True)):
        report(f"fold {number + 1}: directions", 1 + 2 * number, n_steps)
        fold = _Fold(model, items, rows, set(held_out), config)
        fitted = fit_pairs(model, sae, pairs.select(rows), config.fit)
        fitted = fold.steer(fitted, config.seed + number)
        report(f"fold {number + 1}: few-shot prompts", 2 + 2 * number, n_steps)
        n_few_shot += fold.prompt_with_examples()
        predictions += fold.predictions(perspectives)
        warnings += [scores.warning for scores in fold.raw.values() if scores.warning]
        if first is None:
            first = fitted, fold.example(perspectives)
    report("done", n_steps, n_steps)
    assert first is not None
    return Outcome(predictions, *first, n_few_shot, warnings)


class _Fold:
    """One split: what the methods saw, and what they say about the questions they did not see.

    A steered branch is named by (method, perspective, coefficient); all are scored in one pass.
    """

    def __init__(
        self,
        model: TransformerBridge,
        items: Sequence[Item],
        rows: list[Feedback],
        held_out: set[str],
        config: ExperimentConfig,
    ) -> None:
        self.model, self.items, self.rows, self.config = model, items, rows, config
        self.test = [item for item in items if item.id in held_out]
        self.train = [item for item in items if item.id not in held_out]
        self.perspectives = list(dict.fromkeys(row.perspective for row in rows))
        self.raw: dict[str, OptionScores] = {}
        self.scores: dict[str, OptionScores] = {}
        self.few_shot: dict[str, dict[str, Tensor]] = {}
        self.branches: list[tuple[str, str, float]] = []
        self.chosen: dict[tuple[str, str], tuple[int, float]] = {}

    @property
    def readout(self) -> ReadoutConfig:
        return self.config.fit.readout

    def steer(self, fitted: Fit, seed: int) -> Fit:
        """Score all questions under all directions in one pass, then choose the coefficients.

        Returns the fit with the coefficients that were chosen.
        """
        dense = [
            dense_difference(fitted.pairs, d, self.config.fit.features.contrast)
            for d in fitted.directions
        ]
        random = [random_latents(d, fitted.pairs, seed) for d in fitted.directions]
        groups = {
            "SAE directions": fitted.directions,
            "dense difference in means": scaled_to_config(
                self.model, dense, self.config.fit.direction
            ),
            "random latents": random,
        }
        tried = [
            (method, direction, c * direction.coefficient)
            for method, directions in groups.items()
            for direction in directions
            for c in self.config.coefficients
        ]
        self.branches = [(method, d.perspective, c) for method, d, c in tried]
        scores = read_options(
            self.model, self.items, [d.scaled(c) for _, d, c in tried], self.readout
        )
        self.raw = {item.id: s for item, s in zip(self.items, scores, strict=True)}
        offsets = option_offsets([self.raw[item.id] for item in self.train], self.train)
        self.scores = {
            item.id: s
            for item, s in zip(self.items, centred(scores, self.items, offsets), strict=True)
        }
        self.chosen = {
            (method, p): self._best_branch(method, p)
            for method in groups
            for p in self.perspectives
        }
        directions = [
            d.scaled(self.branches[self.chosen["SAE directions", d.perspective][0] - 1][2])
            for d in fitted.directions
        ]
        return replace(fitted, directions=directions)

    def _best_branch(self, method: str, perspective: str) -> tuple[int, float]:
        """Index and temperature of the branch that makes the perspective's feedback likeliest."""
        rows = [row for row in self.rows if row.perspective == perspective]
        targets = [answered(row) for row in rows]
        fitted = []
        for index, (name, whose, _) in enumerate(self.branches, 1):
            if (name, whose) == (method, perspective):
                scores = [self.scores[row.item].scores[index] for row in rows]
                t = fit_temperature(scores, targets)
                fitted.append((cross_entropy(scores, targets, t), index, t))
        _, index, t = min(fitted)
        return index, t

    def prompt_with_examples(self) -> list[int]:
        """Few-shot scores for every perspective; returns how many examples each prompt held."""
        counts = []
        for perspective in self.perspectives:
            own = [row for row in self.rows if row.perspective == perspective]
            scores, n_examples = few_shot_scores(
                self.model, own, self.test, self.readout, self.config.few_shot_tokens
            )
            self.few_shot[perspective] = {
                item.id: s for item, s in zip(self.test, scores, strict=True)
            }
            counts.append(n_examples)
        return counts

    def base_temperature(
        self, scores: dict[str, OptionScores], perspective: str | None = None
    ) -> float:
        """Temperature of the unsteered model, fitted on a perspective's feedback or on all."""
        rows = [row for row in self.rows if perspective in (None, row.perspective)]
        return fit_temperature(
            [scores[row.item].scores[0] for row in rows], [answered(row) for row in rows]
        )

    def distribution(self, method: str, perspective: str, item: Item) -> Distribution:
        if method == "uniform":
            return uniform(item)
        if method == "train-mean":
            return train_mean(self.rows, perspective, item)
        if method in MERGED:
            return self.merged(method, item)
        if method in ("zero-shot", "zero-shot, centred"):
            scores = self.raw if method == "zero-shot" else self.scores
            t = self.base_temperature(scores, perspective)
            return _softmax(scores[item.id].scores[0], t)
        if method == "few-shot prompt":
            # Its own answers stand in the prompt, so its temperature cannot be fitted on them.
            t = self.base_temperature(self.raw, perspective)
            return _softmax(self.few_shot[perspective][item.id], t)
        index, t = self.chosen[method, perspective]
        return _softmax(self.scores[item.id].scores[index], t)

    def merged(self, operator: str, item: Item) -> Distribution:
        """One answer for everybody: the base and every perspective's SAE branch, merged."""
        chosen = [(0, self.base_temperature(self.scores))]
        chosen += [self.chosen["SAE directions", p] for p in self.perspectives]
        scores = self.scores[item.id].scores
        log_probs = torch.stack([(scores[i] / t).log_softmax(-1) for i, t in chosen])
        config = replace(self.config.merge, operator=operator)
        return merge_branches(log_probs, config).exp().double().numpy()

    def predictions(self, perspectives: Sequence[str]) -> list[Prediction]:
        return [
            Prediction(
                method,
                perspective,
                item,
                self.distribution(method, perspective, item),
                np.asarray(item.distributions[perspective]),
            )
            for method in METHODS
            for perspective in perspectives
            for item in self.test
        ]

    def example(self, perspectives: Sequence[str]) -> Example:
        """The held-out question on which perspectives differ most."""

        def spread(item: Item) -> float:
            golds = np.array([item.distributions[p] for p in perspectives])
            return float((golds.max(0) - golds.min(0)).max())

        item = max(self.test, key=spread)
        t = self.base_temperature(self.scores)
        branches = {"base": _softmax(self.scores[item.id].scores[0], t)}
        for p in perspectives:
            branches[p] = self.distribution("SAE directions", p, item)
        gold = {p: np.asarray(item.distributions[p]) for p in perspectives}
        return Example(item, branches, self.merged("pluralistic", item), gold)


def _softmax(scores: Tensor, temperature: float) -> Distribution:
    return (scores / temperature).softmax(-1).double().numpy()
