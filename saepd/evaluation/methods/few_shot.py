"""The base model after examples of a perspective's own feedback, in the task's wording."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.special import softmax

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.feedback.schema import Feedback
from saepd.feedback.targets import answered
from saepd.models.tokens import prompt_ids

# Questions behind one copy of the examples. More of them share its cost, but each also looks at
# every column of the others in vain.
_ITEMS_PER_PASS = 16


def few_shot(fold: Fold) -> Predictions:
    """Likelihood of each option's text after examples, as many as fit.

    The examples run once for several items: each item's question and option are one continuation of
    them. The question runs once for its options, and its own likelihood is the same for all.
    """
    predictions: dict[tuple[str, str], Options] = {}
    for name in fold.perspectives:
        asked = [fold.task.by_id[id_] for id_, whose in fold.asked if whose == name]
        if not asked:
            continue
        prefix = examples(fold, fold.rows(name))
        parts = [asked[i : i + _ITEMS_PER_PASS] for i in range(0, len(asked), _ITEMS_PER_PASS)]
        texts = [
            [f"{fold.cache.prompt(i)} {option}" for i in part for option in i.options]
            for part in parts
        ]
        scored = score_continuations(fold.model, [prefix] * len(parts), texts, [])
        for part, (scores, _) in zip(parts, scored, strict=True):
            of_each = scores[0].double().split([len(item.options) for item in part])
            predictions |= {
                (item.id, name): softmax(row.numpy())
                for item, row in zip(part, of_each, strict=True)
            }
    return {pair: predictions[pair] for pair in fold.asked}


def examples(fold: Fold, rows: Sequence[Feedback]) -> str:
    """Questions with their answers, or most frequent ones, as many as the fold has tokens for.

    Raises:
        InputError: not even one fits.
    """
    text, used = "", 0
    for row in rows:
        option = row.options[int(answered(row).argmax())]
        example = f"{fold.task.wording.text(row.prompt)} {option}\n\n"
        used += len(prompt_ids(fold.model.tokenizer, example))
        if used > fold.few_shot_tokens:
            break
        text += example
    if not text:
        raise InputError(
            f"not one example fits into {fold.few_shot_tokens} tokens: allow more with "
            "few_shot_tokens, or leave out the method few-shot"
        )
    return text
