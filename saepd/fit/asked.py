"""Feedback as a fit sees it: what was answered, and what the model makes of each question.

Every question runs once, up to the lowest site that will be written into. What vectors written
there and at the other sites do to the options, and how that changes with the vectors, is asked of
the captured runs as often as needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.branches.gradients import gradients_at, scores_at
from saepd.common.errors import InputError
from saepd.directions.gate import Reader
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import question_key
from saepd.feedback.targets import answered
from saepd.fit.learnable import check_options
from saepd.models.batching import Progress
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout.softmax import OptionValues, option_features

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Report: TypeAlias = Callable[[str, int, int], None]
# What is written at each site, one after the other.
Vector: TypeAlias = Float[np.ndarray, " sites*d_model"]
# A question, and the perspective that answered it; None stands for all of them together.
Pair: TypeAlias = tuple[str, str | None]
ReadoutFeatures: TypeAlias = Mapping[str, Float[np.ndarray, "options features"]]


class Answer(NamedTuple):
    """One row of feedback.

    Attributes:
        question: Id of its item.
        perspective: Who answered.
        target: What was answered, as a distribution over the options.
    """

    question: str
    perspective: str
    target: OptionValues


class Effect(NamedTuple):
    """What a vector does to the options of a question, and what a little more of it would do.

    Attributes:
        vector: What is written, at one site after the other.
        moved: Nats by which it moves each option's score from the base's.
        gradients: Nats of each option per residual unit added to the vector.
    """

    vector: Vector
    moved: OptionValues
    gradients: Float[np.ndarray, "options sites*d_model"]


@dataclass(frozen=True, eq=False)
class Asked:
    """Answers, and the questions' captured runs.

    Attributes:
        hook_names: The sites that vectors are written into, the lowest first.
        positions: Where they are written; see `saepd.models.positions`.
        answers: The feedback.
        wordings: Question -> what questions in the same words have in common.
        scores: Question -> log-likelihoods of its options without steering, nats.
        captured: The questions' runs, in the order of ``scores``.
        readers: What gates would see of the questions at each site; none if none are learned.
    """

    hook_names: tuple[str, ...]
    positions: str
    answers: Sequence[Answer]
    wordings: Mapping[str, str]
    scores: Mapping[str, OptionValues]
    captured: CapturedPrompts
    readers: tuple[Reader, ...] = ()

    @cached_property
    def readings(self) -> dict[str, Float[np.ndarray, " reading"]]:
        """Question -> what a gate reads of it, at the lowest site, before anything is written.

        Raises:
            InputError: it was asked without a reader.
        """
        if not self.readers:
            raise InputError("gates need what was read of each prompt: give `ask` a reader")
        readings = self.captured.readings(self.readers[0]).double().numpy()
        return dict(zip(self.scores, readings, strict=True))

    @property
    def model(self) -> TransformerBridge:
        """The language model."""
        return self.captured.model

    def at(self, sites: Sequence[int]) -> Asked:
        """The same feedback, for vectors that are written at some of the sites only."""
        return replace(
            self,
            hook_names=tuple(self.hook_names[site] for site in sites),
            readers=tuple(self.readers[site] for site in sites) if self.readers else (),
        )

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return len(self.hook_names) * int(self.model.cfg.d_model)

    @property
    def perspectives(self) -> list[str]:
        """Who answered, in the order of their first answers."""
        return list(dict.fromkeys(row.perspective for row in self.answers))

    @property
    def n_positions(self) -> int:
        """Options of the question that has most."""
        return max(map(len, self.scores.values()))

    def readout_features(self) -> ReadoutFeatures:
        """Question -> what the readout makes of its scores; see `option_features`."""
        return {q: option_features(scores, self.n_positions) for q, scores in self.scores.items()}

    def pairs(self, vectors: Mapping[str, Vector]) -> dict[Pair, Vector]:
        """Each perspective's vector, for every question that it answered."""
        return {
            (row.question, row.perspective): vectors[row.perspective]
            for row in self.answers
            if row.perspective in vectors
        }

    def everywhere(self, vector: Vector) -> dict[Pair, Vector]:
        """One vector of all perspectives, for every question."""
        return {(question, None): vector for question in self.scores}

    def effects(
        self, vectors: Mapping[Pair, Vector], report: Progress | None = None
    ) -> dict[Pair, Effect]:
        """What vectors do to the options, and what a little more of each would do.

        Args:
            vectors: What is written.
            report: Told how many questions are done, and of how many.
        """
        runs, place = self._placed([vectors])
        option_gradients = gradients_at(
            self.captured, runs, self.hook_names, positions=self.positions, progress=report
        )
        by_question = dict(zip(self.scores, option_gradients, strict=True))
        effects: dict[Pair, Effect] = {}
        for (_, pair), index in place.items():
            log_probs, gradients = by_question[pair[0]]
            moved = log_probs[index].double().numpy() - self.scores[pair[0]]
            slopes = gradients[index].flatten(1).double().numpy()
            effects[pair] = Effect(vectors[pair], moved, slopes)
        return effects

    def moved(self, *vectors: Mapping[Pair, Vector]) -> list[dict[Pair, OptionValues]]:
        """``moved`` of `effects`, without gradients, for several sets of vectors in one pass."""
        runs, place = self._placed(vectors)
        log_probs = scores_at(self.captured, runs, self.hook_names, positions=self.positions)
        by_question = dict(zip(self.scores, log_probs, strict=True))
        moved: list[dict[Pair, OptionValues]] = [{} for _ in vectors]
        for (number, pair), index in place.items():
            scores = by_question[pair[0]][index].double().numpy()
            moved[number][pair] = scores - self.scores[pair[0]]
        return moved

    def _placed(
        self, sets: Sequence[Mapping[Pair, Vector]]
    ) -> tuple[list[Float[Tensor, "vectors sites d_model"]], dict[tuple[int, Pair], int]]:
        """The vectors of each question, and which of them each set's pairs have."""
        by_question: dict[str, list[Vector]] = {question: [] for question in self.scores}
        place: dict[tuple[int, Pair], int] = {}
        for number, vectors in enumerate(sets):
            for pair, vector in vectors.items():
                place[number, pair] = len(by_question[pair[0]])
                by_question[pair[0]].append(vector)
        shape = (-1, len(self.hook_names), int(self.model.cfg.d_model))
        runs = [
            torch.from_numpy(np.reshape(of_question, shape)).float()
            for of_question in by_question.values()
        ]
        return runs, place


def ask(
    model: TransformerBridge,
    rows: Sequence[Feedback],
    hook_names: Sequence[str],
    readout: ReadoutConfig,
    positions: str,
    report: Report,
    *,
    readers: Sequence[Reader] = (),
) -> Asked:
    """Run the questions of the feedback as far as vectors at some sites leave them alone.

    Args:
        model: The language model.
        rows: The feedback.
        hook_names: The sites, the lowest first.
        readout: How options are read.
        positions: Where vectors will be written; see `saepd.models.positions`.
        report: Told what is being done.
        readers: What gates that will be learned are to see of the questions, at each site.

    Raises:
        InputError: rows without an answer among options, one item in two wordings, an option
            without any probability, a readout other than the likelihood of the options' texts, or
            whatever `capture_prompts` refuses.
    """
    if readout.readout != "text" or readout.length_normalised:
        raise InputError(
            "directions are learned on the likelihood of the options' texts: leave the readout at "
            "text, and not normalised by length"
        )
    check_options(rows)
    answers = [Answer(row.item, row.perspective, answered(row)) for row in rows]
    items: dict[str, Item] = {}
    for row in rows:
        item = row.as_item()
        if items.setdefault(row.item, item) != item:
            raise InputError(
                f"feedback {row.id!r} asks item {row.item!r} in other words, or with other "
                "options, than a row before it: give it another item"
            )
    report("running questions", 0, len(items))
    captured = capture_prompts(
        model,
        [item_prompt(model, item.prompt, item.options, readout) for item in items.values()],
        hook_names[0],
        positions=positions,
        continuations=[item.options for item in items.values()],
        gates=list(readers),
        progress=partial(report, "running questions"),
    )
    scores = {
        id_: scored.log_probs[0].double().numpy()
        for id_, scored in zip(items, captured.score_continuations([]), strict=True)
    }
    for id_, log_probs in scores.items():
        if not np.isfinite(log_probs).all():
            raise InputError(
                f"item {id_!r}: the model gives an option no probability: leave the item out"
            )
    wordings = {id_: question_key(item.prompt) for id_, item in items.items()}
    return Asked(tuple(hook_names), positions, answers, wordings, scores, captured, tuple(readers))
