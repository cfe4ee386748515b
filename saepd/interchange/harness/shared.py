"""Answers of the base, of every perspective and of their merge, computed together and once.

The harness evaluates one model at a time. Here all of them are views of one run: whoever asks first
has everything computed, and the others find it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.run import score_tokens
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch, generate_branches
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.interchange.from_directions import by_perspective
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.readout.fitted import as_fitted, fitted_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BASE, MERGED = "base", "merged"

Tokens = tuple[int, ...]
# A question: each of its options as the tokens before it and its own.
Question = tuple[tuple[Tokens, Tokens], ...]


class SharedRun:
    """Every branch's scores and texts, each question run once.

    Attributes:
        model: The language model.
        names: Names of the rows: the base, each perspective, their merge.
    """

    def __init__(
        self,
        model: TransformerBridge,
        directions: Sequence[Direction],
        merge: MergeConfig | None = None,
    ) -> None:
        groups = by_perspective(directions)
        self.model, self._merge = model, merge or MergeConfig()
        self._branches = list(groups.values())
        self._weights = fitted_weights(self._branches)
        self.names = [BASE, *groups, *([MERGED] if groups else [])]
        self._scores: dict[Question, Float[Tensor, "names options"]] = {}
        self._texts: dict[tuple[str, SamplingConfig], list[str]] = {}

    def scores(self, questions: Sequence[Question], name: str) -> list[Float[Tensor, " options"]]:
        """Scores of each question's options under one of the names, in nats.

        The base's are log-likelihoods of the whole options, as the model scores them. So are a
        perspective's, unless its directions carry a fitted readout, which then is applied. The
        merge's are log-probs over the options.

        Raises:
            InputError: no such name, or the merge of a question with a single option.
        """
        row = self._row(name)
        if name == MERGED and any(len(question) < 2 for question in questions):
            raise InputError(
                "the merge is one answer out of several options, and a task asks for the "
                "likelihood of a single text: run it without the merge"
            )
        missing = [q for q in dict.fromkeys(questions) if q not in self._scores]
        if missing:
            self._scores |= self._run(missing)
        return [self._scores[question][row] for question in questions]

    def texts(self, prompts: Sequence[str], sampling: SamplingConfig, name: str) -> list[str]:
        """What one of the names writes after each prompt.

        Raises:
            InputError: as `saepd.generate_branches`.
        """
        row = self._row(name)
        missing = [p for p in dict.fromkeys(prompts) if (p, sampling) not in self._texts]
        if missing:
            apart = generate_branches(self.model, missing, self._branches, sampling)
            together = (
                generate_batch(self.model, missing, self._branches, self._merge, sampling)
                if self._branches
                else [None] * len(missing)
            )
            for prompt, texts, one in zip(missing, apart, together, strict=True):
                merged = [] if one is None else [one.text]
                self._texts[prompt, sampling] = [text.text for text in texts] + merged
        return [self._texts[prompt, sampling][row] for prompt in prompts]

    def _row(self, name: str) -> int:
        if name not in self.names:
            raise InputError(f"there is no branch {name!r}: use one of {', '.join(self.names)}")
        return self.names.index(name)

    def _run(self, questions: Sequence[Question]) -> dict[Question, Tensor]:
        texts: dict[Tokens, dict[Tokens, None]] = {}
        for question in questions:
            for before, option in question:
                texts.setdefault(before, {})[option] = None
        prompts = list(texts)
        scored = score_tokens(
            self.model,
            [list(prompt) for prompt in prompts],
            [[list(option) for option in texts[prompt]] for prompt in prompts],
            self._branches,
        )
        log_probs = {
            (prompt, option): scores.log_probs[:, i]
            for prompt, scores in zip(prompts, scored, strict=True)
            for i, option in enumerate(texts[prompt])
        }
        return {
            question: self._rows(
                torch.stack([log_probs[pair] for pair in question], dim=1).double()
            )
            for question in questions
        }

    def _rows(self, raw: Float[Tensor, "branches options"]) -> Float[Tensor, "names options"]:
        if not self._branches or raw.shape[1] < 2:
            # Of a single option there is no merge, and no readout over options.
            return torch.cat([raw, raw[:1]])
        read = raw if self._weights is None else as_fitted(raw, self._weights)
        merged = merge_branches(read.log_softmax(-1), self._merge).to(read)
        return torch.cat([raw[:1], read[1:], merged.unsqueeze(0)])
