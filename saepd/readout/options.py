"""From branches to answers: how probable each option is, by its letter or by its whole text.

``letter`` reads the token that names the option after a prompt that lists the options. ``text``
sums the log-likelihood of each option's whole text as the continuation of the prompt. Small
models often have no content in their letters while their texts have some, so both are kept, and
how much probability the options hold together is always reported. Where directions carry a readout
that was fitted together with them, it makes the answers of these scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from saepd.branches.engine.plan import Branch
from saepd.branches.pack_results import Scores
from saepd.branches.run import next_token_log_probs, score_continuations
from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.directions.accepting import Branches, as_branches
from saepd.directions.direction import Direction
from saepd.feedback.accepting import as_items
from saepd.feedback.schema import Item
from saepd.models.identity import check_model
from saepd.models.prompts import item_prompt, letters
from saepd.models.tokens import continuation_ids
from saepd.models.wording import ReadoutConfig
from saepd.readout.fitted import as_fitted, fitted_weights
from saepd.readout.option_scores import OptionScores
from saepd.readout.softmax import SoftmaxWeights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Letters that hold less than this together say nothing about the options.
MIN_LETTER_MASS = 0.01


def read_options(
    model: TransformerBridge,
    items: Item | Sequence[Item],
    directions: Branches,
    config: ReadoutConfig | None = None,
    *,
    prefix: str = "",
    raw: bool = False,
) -> list[OptionScores]:
    """Scores of every item's options under the base model and every branch.

    Directions that carry a fitted readout are read with it: then the scores are log-probs of the
    answers, base included; see `saepd.directions.fitted_readout.FittedReadout`. That reads the
    difference of two runs as they are, so half precision costs it no more than its own rounding,
    some hundredths of a nat.

    Args:
        model: The language model.
        items: One item with options, or several.
        directions: Directions of the branches, or a fit; without any, only the base is read.
        config: How options are read; if None, as the directions' readout was fitted, or else by
            their texts in plain style.
        prefix: Text in front of every prompt, such as examples.
        raw: Read the options as the model scores them, whatever readout directions carry.

    Returns:
        The scores of each item, in the order of the items; branch 0 is the base.

    Raises:
        InputError: what is no item, one without options, options that cannot be told apart by
            this readout, whatever `saepd.branches.run` refuses, or directions whose fitted readouts
            do not go together or were fitted with another config.
    """
    check_model(model)
    items, branches = as_items(items), as_branches(directions)
    if config is None:
        fitted = [d.readout for branch in branches for d in branch if d.readout is not None]
        config = fitted[0].config if fitted else ReadoutConfig()
    check_part("config", config, ReadoutConfig)
    weights = None if raw else fitted_weights(branches, config)
    for item in items:
        if not item.options:
            raise InputError(f"item {item.id!r} has no options to read: generate text instead")
    prompts = [prefix + item_prompt(model, item.prompt, item.options, config) for item in items]
    if config.readout == "letter":
        scores = _read_letters(model, items, prompts, branches)
    else:
        scores = _read_texts(model, items, prompts, branches, config)
    return _named(scores, items, branches, weights)


def read_scored(
    items: Sequence[Item],
    scored: Sequence[Scores],
    directions: Branches,
    config: ReadoutConfig,
) -> list[OptionScores]:
    """`read_options` of options whose texts have been scored already, as captured prompts do.

    Args:
        items: Items with options.
        scored: For each item, what `score_continuations` says of its options.
        directions: The branches.
        config: How options are read: by their texts.

    Raises:
        InputError: directions whose fitted readouts do not go together, or were fitted with
            another config.
    """
    branches = as_branches(directions)
    weights = fitted_weights(branches, config)
    return _named(_as_options(items, scored, config), items, branches, weights)


def _named(
    scores: Sequence[OptionScores],
    items: Sequence[Item],
    branches: Sequence[Sequence[Direction]],
    weights: Sequence[SoftmaxWeights] | None,
) -> list[OptionScores]:
    """Scores with the names of options and branches, and as the fitted readout has them."""
    names = ("base", *(" + ".join(d.perspective for d in branch) for branch in branches))
    named = [
        replace(one, options=item.options, branches=names)
        for one, item in zip(scores, items, strict=True)
    ]
    return named if weights is None else [_as_fitted(one, weights) for one in named]


def _as_fitted(item_scores: OptionScores, weights: Sequence[SoftmaxWeights]) -> OptionScores:
    scores = as_fitted(item_scores.scores, weights).to(item_scores.scores)
    return replace(item_scores, scores=scores, n_tokens=torch.ones_like(item_scores.n_tokens))


def _read_letters(
    model: TransformerBridge,
    items: Sequence[Item],
    prompts: Sequence[str],
    directions: Sequence[Branch],
) -> list[OptionScores]:
    chosen = []
    for item, prompt in zip(items, prompts, strict=True):
        first = [
            continuation_ids(model.tokenizer, prompt, letter)[0]
            for letter in letters(len(item.options))
        ]
        if len(set(first)) < len(first):
            raise InputError(f"item {item.id!r}: two letters share a token: use the text readout")
        chosen.append(first)
    log_probs = next_token_log_probs(model, prompts, directions)
    result = []
    for item, tokens, rows in zip(items, chosen, log_probs, strict=True):
        scores = rows[:, tokens]
        mass = scores.logsumexp(-1).exp()
        low = float(mass.min())
        warning = ""
        if low < MIN_LETTER_MASS:
            warning = f"item {item.id!r}: the letters hold only {low:.1e} of the probability"
        ones = torch.ones(len(tokens), dtype=torch.long, device=scores.device)
        result.append(OptionScores(scores, mass, ones, warning))
    return result


def _read_texts(
    model: TransformerBridge,
    items: Sequence[Item],
    prompts: Sequence[str],
    directions: Sequence[Branch],
    config: ReadoutConfig,
) -> list[OptionScores]:
    for item, prompt in zip(items, prompts, strict=True):
        tokens = [tuple(continuation_ids(model.tokenizer, prompt, o)) for o in item.options]
        if len(set(tokens)) < len(tokens):
            raise InputError(f"item {item.id!r}: two options have the same tokens: reword one")
    scored = score_continuations(model, prompts, [item.options for item in items], directions)
    return _as_options(items, scored, config)


def _as_options(
    items: Sequence[Item], scored: Sequence[Scores], config: ReadoutConfig
) -> list[OptionScores]:
    """Scores of the options' texts, with what is to be said about them."""
    result = []
    for item, (scores, lengths) in zip(items, scored, strict=True):
        mass = scores.logsumexp(-1).exp()
        warning = ""
        if not bool(torch.isfinite(scores).all()):
            warning = f"item {item.id!r}: an option has probability zero in some branch"
        n_tokens = torch.tensor(lengths if config.length_normalised else [1] * len(lengths))
        n_tokens = n_tokens.to(scores.device)
        result.append(OptionScores(scores / n_tokens, mass, n_tokens, warning))
    return result
