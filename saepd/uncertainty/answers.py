"""What a model answers to an item, with options or without: one form for both.

An item's answers are its options. Where it has none, they are what the model writes: samples of the
base model and a text of every perspective, clustered by the rule of
`saepd.metrics.same_answer`; a cluster is as probable as its texts together, among all
that were written. From there on both are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.run import score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.feedback.schema import Item
from saepd.metrics.same_answer import cluster_by_f1
from saepd.models.prompts import item_prompt, letters
from saepd.models.wording import ReadoutConfig
from saepd.readout.fitted import as_fitted, fitted_weights
from saepd.readout.options import read_options
from saepd.readout.softmax import SoftmaxWeights
from saepd.uncertainty.asking_again import (
    Repeated,
    iterate_over_options,
    iterate_over_samples,
    uncertainty_over_options,
)
from saepd.uncertainty.config import EpistemicConfig
from saepd.uncertainty.reading import Reading

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Options that hold less than this together are hardly among what the model would say.
MIN_MASS = 1e-9


@dataclass(frozen=True)
class Answers:
    """One item's answers under every branch.

    Attributes:
        item: What was asked.
        prompt: The text it was asked with.
        texts: What was scored behind it.
        answers: What the texts are, or what each cluster of them is called.
        scores: Log-likelihoods of the texts, nats.
        read: From scores, the base's first, to log-probs of the answers at a temperature. It is
            told the branch of every row, whose fitted readout reads it where there is one.
        temperature: Temperature that the branches are read at.
        epistemic: Uncertainty of that name, nats.
        mass: Probability that the options hold together, in each branch.
        warning: What is wrong, if anything.
    """

    item: Item
    prompt: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    scores: Float[Tensor, "branches texts"]
    read: Callable[
        [Float[Tensor, "rows texts"], float, Sequence[int]], Float[Tensor, "rows answers"]
    ]
    temperature: float
    epistemic: float
    mass: Float[np.ndarray, " branches"]
    warning: str = ""

    @property
    def log_probs(self) -> Float[Tensor, "branches answers"]:
        """Of the answers under every branch, as they are read, nats."""
        return self.read(self.scores.double(), self.temperature, range(len(self.scores)))

    @property
    def readable(self) -> bool:
        """Whether there is an answer, and every branch gives one some probability."""
        return bool(len(self.answers)) and bool(self.scores.isfinite().any(-1).all())


def answers_over_options(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Sequence[Direction],
    reading: Reading,
    config: ReadoutConfig,
) -> list[Answers]:
    """What every branch says to each item's options.

    Args:
        model: The language model.
        items: Items with options; there may be none.
        directions: The branches; without any, only the base is read.
        reading: How scores become probabilities.
        config: How options are read.

    Raises:
        InputError: a reading that was fitted without the directions' readout, or whatever
            `read_options` and `iterate_over_options` refuse.
    """
    if not items:
        return []
    weights = fitted_weights([[direction] for direction in directions], config)
    is_fitted = reading.temperature != 1 or bool(reading.offsets)
    if is_fitted and reading.of_fitted != (weights is not None):
        raise InputError(
            "this reading was fitted for other directions, since only one of both knows a fitted "
            "readout: give fit_reading the directions too"
        )
    answers: list[Answers] = []
    scored = read_options(model, items, directions, config, raw=True)
    repeated = iterate_over_options(model, items, config)
    for item, scores, again in zip(items, scored, repeated, strict=True):
        offset = reading.offsets.get(item.options, torch.zeros(len(item.options))).double()
        warning, least = scores.warning, float(scores.mass.min())
        if not warning and not least >= MIN_MASS:
            warning = f"item {item.id!r}: the options hold only {least:.1e} of the probability"
        letter = config.readout == "letter"
        n = scores.n_tokens.double().cpu()
        per_token = Repeated(again.first / n.numpy(), again.second / n.numpy())
        answers.append(
            Answers(
                item=item,
                prompt=item_prompt(model, item.prompt, item.options, config),
                texts=tuple(letters(len(item.options))) if letter else item.options,
                answers=item.options,
                scores=scores.log_likelihoods,
                read=partial(_option_log_probs, n, offset, weights),
                temperature=reading.temperature,
                epistemic=uncertainty_over_options(per_token, offset),
                mass=scores.mass.double().numpy(),
                warning=warning,
            )
        )
    return answers


def _option_log_probs(
    n_tokens: Int[Tensor, " options"],
    offset: Float[Tensor, " options"],
    weights: Sequence[SoftmaxWeights] | None,
    scores: Float[Tensor, "rows options"],
    temperature: float,
    branches: Sequence[int],
) -> Float[Tensor, "rows options"]:
    """Log-probs of options, each row of scores read as its branch is."""
    per_token = scores / n_tokens
    if weights is not None:
        per_token = as_fitted(per_token, [weights[branch] for branch in branches])
    return ((per_token - offset) / temperature).log_softmax(-1)


def answers_over_samples(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Sequence[Direction],
    readout: ReadoutConfig,
    config: EpistemicConfig,
    sampling: SamplingConfig,
) -> list[Answers]:
    """What the base writes to each item, and every branch says to what was written.

    Args:
        model: The language model.
        items: Items without options; there may be none.
        directions: The branches, of which each writes one text too.
        readout: How the question is put.
        config: How many samples, at which temperature, and when two match.
        sampling: Where texts end, and the seed; its temperature is the config's.

    Raises:
        InputError: whatever `iterate_over_samples` and `generate_branches` refuse.
    """
    if not items:
        return []
    prompts = [item_prompt(model, item.prompt, (), readout) for item in items]

    def naming(index: int, answer: str) -> str:
        return item_prompt(model, items[index].prompt, (), readout, named=answer)

    sampled = iterate_over_samples(model, prompts, naming, config, sampling)
    responses = [list(one.responses) for one in sampled]
    if directions:
        drawn = replace(sampling, temperature=config.temperature)
        written = generate_branches(model, prompts, directions, drawn)
        for texts, branches in zip(responses, written, strict=True):
            texts += [text for one in branches[1:] if (text := " ".join(one.text.split()))]
    pools = [tuple(dict.fromkeys(texts)) for texts in responses]
    some = [i for i, pool in enumerate(pools) if pool]
    scored = {}
    if some:
        rows = score_continuations(
            model, [prompts[i] for i in some], [pools[i] for i in some], directions
        )
        scored = {i: row.log_probs for i, row in zip(some, rows, strict=True)}
    answers: list[Answers] = []
    for i, (item, pool) in enumerate(zip(items, pools, strict=True)):
        centre_of = cluster_by_f1(pool, config.similarity)
        centres = sorted(set(centre_of))
        member = torch.tensor([[c == centre for c in centre_of] for centre in centres])
        n_empty, n = sampled[i].n_empty, config.n_samples
        answers.append(
            Answers(
                item=item,
                prompt=prompts[i],
                texts=pool,
                answers=tuple(pool[centre] for centre in centres),
                scores=scored.get(i, torch.empty(1 + len(directions), 0)),
                read=lambda s, _t, _branches, member=member: _clustered(s, member),
                temperature=1.0,
                epistemic=sampled[i].uncertainty,
                mass=np.full(1 + len(directions), np.nan),
                warning=f"item {item.id!r}: {n_empty} of {n} sampled answers were empty"
                if n_empty
                else "",
            )
        )
    return answers


def _clustered(
    scores: Float[Tensor, "branches texts"], member: Float[Tensor, "answers texts"]
) -> Float[Tensor, "branches answers"]:
    """Log-probs of clusters among the texts that there are."""
    by_answer = scores.unsqueeze(-2).masked_fill(~member.bool(), -np.inf)
    return by_answer.logsumexp(-1).log_softmax(-1)
