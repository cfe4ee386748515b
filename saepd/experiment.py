"""Hold out whole questions, fit on little feedback, compare every method with what people said.

The questions are split into folds. For each fold, 50 answers per perspective are drawn from the
questions of the other folds; every method sees these and nothing else; all of them predict the
fold's questions. So each question is predicted once, by methods that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from saepd.baselines import answered, few_shot_scores, train_mean, uniform
from saepd.controls import dense_difference, random_latents
from saepd.directions import Direction
from saepd.features import encode_pairs
from saepd.feedback import sample_feedback
from saepd.fit import Fit, FitConfig, fit_pairs, scaled_to_config
from saepd.merge import MergeConfig, merge_branches
from saepd.prompts import ReadoutConfig
from saepd.readout import OptionScores, fit_temperature, read_options
from saepd.schema import Feedback, Item
from saepd.survey import folds

if TYPE_CHECKING:
    from sae_lens import SAE
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

MERGED = ("pluralistic", "mixture", "product")
METHODS = (
    "uniform",
    "train-mean",
    "zero-shot",
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
        fit: From feedback to directions.
        merge: The pluralistic merge; the other merges take its alpha and tau.
    """

    n_feedback: int = 50
    n_folds: int = 5
    seed: int = 0
    few_shot_tokens: int = 512
    fit: FitConfig = field(default_factory=FitConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)


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
        fold.steer(fitted, config.seed + number)
        report(f"fold {number + 1}: few-shot prompts", 2 + 2 * number, n_steps)
        n_few_shot += fold.prompt_with_examples()
        predictions += fold.predictions(perspectives)
        warnings += [scores.warning for scores in fold.scores.values() if scores.warning]
        if first is None:
            first = fitted, fold.example(perspectives)
    report("done", n_steps, n_steps)
    assert first is not None
    return Outcome(predictions, *first, n_few_shot, warnings)


class _Fold:
    """One split: what the methods saw, and what they say about the questions they did not see."""

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
        self.perspectives = list(dict.fromkeys(row.perspective for row in rows))
        self.scores: dict[str, OptionScores] = {}
        self.few_shot: dict[str, dict[str, Tensor]] = {}
        self.names: list[tuple[str, str]] = []

    @property
    def readout(self) -> ReadoutConfig:
        return self.config.fit.readout

    def steer(self, fitted: Fit, seed: int) -> None:
        """Score all questions, seen and unseen, under all directions in one branched pass."""
        dense = [dense_difference(fitted.pairs, d) for d in fitted.directions]
        random = [random_latents(d, fitted.pairs, seed) for d in fitted.directions]
        controls = scaled_to_config(self.model, [*dense, *random], self.config.fit.direction)
        groups: list[tuple[str, Sequence[Direction]]] = [
            ("SAE directions", fitted.directions),
            ("dense difference in means", controls[: len(dense)]),
            ("random latents", controls[len(dense) :]),
        ]
        self.names = [(method, d.perspective) for method, group in groups for d in group]
        directions = [d for _, group in groups for d in group]
        scores = read_options(self.model, self.items, directions, self.readout)
        self.scores = {item.id: s for item, s in zip(self.items, scores, strict=True)}

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

    def branch_index(self, method: str, perspective: str) -> int:
        return 0 if method == "zero-shot" else 1 + self.names.index((method, perspective))

    def temperature(self, method: str, perspective: str) -> float:
        """Fitted on the perspective's own feedback, from the branch that will be read."""
        branch = self.branch_index(method, perspective)
        own = [row for row in self.rows if row.perspective == perspective]
        return fit_temperature(
            [self.scores[row.item].scores[branch] for row in own], [answered(row) for row in own]
        )

    def distribution(self, method: str, perspective: str, item: Item) -> Distribution:
        if method == "uniform":
            return uniform(item)
        if method == "train-mean":
            return train_mean(self.rows, perspective, item)
        if method == "few-shot prompt":
            # Its own answers stand in the prompt, so its temperature cannot be fitted on them.
            t = self.temperature("zero-shot", perspective)
            return _softmax(self.few_shot[perspective][item.id], t)
        if method in MERGED:
            return self.merged(method, item)
        branch = self.branch_index(method, perspective)
        t = self.temperature(method, perspective)
        return _softmax(self.scores[item.id].scores[branch], t)

    def merged(self, operator: str, item: Item) -> Distribution:
        """One answer for everybody: the base and every perspective's SAE branch, merged."""
        from dataclasses import replace

        import torch

        rows = [("zero-shot", self.perspectives[0])]
        rows += [("SAE directions", p) for p in self.perspectives]
        log_probs = torch.stack(
            [
                (
                    self.scores[item.id].scores[self.branch_index(m, p)] / self.temperature(m, p)
                ).log_softmax(-1)
                for m, p in rows
            ]
        )
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
        branches = {"base": self.distribution("zero-shot", perspectives[0], item)}
        for p in perspectives:
            branches[p] = self.distribution("SAE directions", p, item)
        gold = {p: np.asarray(item.distributions[p]) for p in perspectives}
        return Example(item, branches, self.merged("pluralistic", item), gold)


def _softmax(scores: Tensor, temperature: float) -> Distribution:
    return (scores / temperature).softmax(-1).double().numpy()
