"""What every method must beat, given the same feedback: uniform, train-mean, few-shot prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.targets import answered
from saepd.models.prompts import item_prompt, prompt_ids
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def uniform(item: Item) -> Float[np.ndarray, " options"]:
    """The same probability for every option."""
    return np.full(len(item.options), 1 / len(item.options))


def train_mean(
    rows: Sequence[Feedback], perspective: str, item: Item
) -> Float[np.ndarray, " options"]:
    """Mean of one perspective's feedback on items with as many options; uniform without any."""
    same = [
        answered(row)
        for row in rows
        if row.perspective == perspective and len(row.options) == len(item.options)
    ]
    return np.mean(same, axis=0) if same else uniform(item)


def few_shot_prefix(
    model: TransformerBridge,
    rows: Sequence[Feedback],
    config: ReadoutConfig,
    max_tokens: int,
) -> tuple[str, int]:
    """Examples made of feedback, as many as fit into ``max_tokens``, and how many those are.

    Raises:
        InputError: not even one example fits, or the rows are not answered by option.
    """
    examples: list[str] = []
    used = 0
    for row in rows:
        option = row.options[int(answered(row).argmax())]
        text = f"{item_prompt(model, row.prompt, row.options, config)} {option}\n\n"
        length = len(prompt_ids(model.tokenizer, text))
        if used + length > max_tokens:
            break
        examples.append(text)
        used += length
    if not examples:
        raise InputError(f"not one example fits into {max_tokens} tokens: allow more")
    return "".join(examples), len(examples)


def few_shot_scores(
    model: TransformerBridge,
    rows: Sequence[Feedback],
    items: Sequence[Item],
    config: ReadoutConfig,
    max_tokens: int,
) -> tuple[list[Float[Tensor, " options"]], int]:
    """Option scores of the unsteered model after examples, and how many examples it saw.

    The examples run once for all items: each item's question and option are one continuation of
    them, and the question's own likelihood is the same for all options of an item.

    Raises:
        InputError: as `few_shot_prefix`; or a readout other than plain text.
    """
    if config.readout != "text" or config.style != "plain":
        raise InputError("few-shot prompts need the text readout in plain style")
    prefix, n_examples = few_shot_prefix(model, rows, config, max_tokens)
    continuations = [
        f"{item_prompt(model, item.prompt, item.options, config)} {option}"
        for item in items
        for option in item.options
    ]
    [(scores, _)] = score_continuations(model, [prefix], [continuations], [])
    return list(scores[0].split([len(item.options) for item in items])), n_examples
