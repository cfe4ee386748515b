"""What a language model is asked about a latent, and what its answers say.

A label is asked for as usual in automated interpretability, and scored by detection (Paulo et al.
2024, "Automatically Interpreting Millions of Features in Large Language Models", arXiv 2410.13928):
shown the label and excerpts in a shuffled order, the model says in which the latent fires.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy.stats import binomtest

from saepd.features.index.given_labels import Detection, clean_text
from saepd.features.index.latent_page import Context

# Tokens are marked from this share of the strongest activation in their context.
_MARKED = 0.3
_LONGEST_LABEL = 200
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.S)
_LEAD = re.compile(r"^(label|answer)\s*:", re.I)
_WRAPPING = " \n\"'*`"
_REFUSAL = re.compile(
    r"((i'm |i am )?sorry,? (but )?i\b|i (can ?not|can't|won't|am unable)\b|as an ai\b)", re.I
)
_NUMBERS = re.compile(r"([\s,;.&()\[\]]|\d|and)*\d([\s,;.&()\[\]]|\d|and)*", re.I)


def label_prompt(contexts: Sequence[Context], raises: Sequence[str]) -> str:
    """Asks for the label of a latent.

    Args:
        contexts: Where it fires, strongest first.
        raises: Tokens whose logits it raises most; none where nobody can tell.
    """
    tokens = ", ".join(json.dumps(token, ensure_ascii=False) for token in raises)
    promoted = f"\nIt makes these next tokens likelier: {tokens}\n" if tokens else ""
    return (
        "A unit of a language model fires at some tokens of texts. In these excerpts, tokens at "
        "which it fires strongly are between << and >>.\n\n"
        f"{_listed([marked(context) for context in contexts])}\n{promoted}\n"
        "What do the marked tokens, or the words before them, have in common? Answer with one "
        "label of at most twelve words, on one line, and nothing else."
    )


def detection_prompt(label: str, excerpts: Sequence[str]) -> str:
    """Asks in which excerpts a latent fires that has this label."""
    return (
        "A unit of a language model fires at some tokens of texts. It is described as follows.\n\n"
        f"Label: {label}\n\n"
        f"Excerpts:\n\n{_listed(excerpts)}\n\n"
        "In which of these excerpts does it fire? Answer with their numbers, separated by commas, "
        'or with "none", and nothing else.'
    )


def marked(context: Context) -> str:
    """A context with << and >> around tokens at which the latent fires strongly."""
    least = _MARKED * max(context.activations)
    said, inside = "", False
    for token, activation in zip(context.tokens, context.activations, strict=True):
        strong = activation > 0 and activation >= least
        if strong and not inside:
            blank = token[: len(token) - len(token.lstrip())]
            said, token = f"{said}{blank}<<", token.lstrip()
        elif inside and not strong:
            said += ">>"
        said, inside = said + token, strong
    return said + (">>" if inside else "")


def read_label(answer: str) -> tuple[str, str]:
    """The label in an answer, empty where there is none, and then why not."""
    said = _bare(answer)
    label = clean_text(said)
    if not label:
        return "", "the answer is empty"
    if len(said.splitlines()) > 1:
        return "", "the answer has several lines"
    if len(label) > _LONGEST_LABEL:
        return "", f"the answer has {len(label)} characters"
    if _REFUSAL.match(label.replace("\u2019", "'")):
        return "", "the model would not answer"
    return label, ""


def read_numbers(answer: str, n: int) -> set[int] | None:
    """Which of n excerpts, counted from 0, an answer names; None where it cannot be read."""
    said = _bare(answer)
    if said.lower().strip(".") == "none":
        return set()
    if not _NUMBERS.fullmatch(said):
        return None
    numbers = {int(number[:9]) - 1 for number in re.findall(r"\d+", said)}
    return numbers if numbers <= set(range(n)) else None


def _bare(answer: str) -> str:
    """An answer without thoughts before it, and without what it is wrapped in."""
    said = _THOUGHTS.sub("", answer).strip(_WRAPPING)
    return _LEAD.sub("", said).strip(_WRAPPING)


def detect(
    right: Bool[np.ndarray, " n"], right_other: Bool[np.ndarray, " n"], other: int
) -> Detection:
    """How well a label tells excerpts, of which half fire, beside the label of another latent.

    Of so many each, balanced accuracy is the share told right; its interval is Clopper and
    Pearson's. Excerpts that one of the labels tells right and the other does not decide which is
    better: one-sided exact test (McNemar 1947).

    Args:
        right: Which excerpts were told right under the label.
        right_other: Which were under that of another latent.
        other: The other latent.
    """
    shares: list[float] = []
    for told in (right, right_other):
        interval = binomtest(int(told.sum()), len(told)).proportion_ci()
        shares += [float(told.mean()), float(interval.low), float(interval.high)]
    gained, lost = int((right & ~right_other).sum()), int((right_other & ~right).sum())
    p = binomtest(gained, gained + lost, alternative="greater").pvalue if gained + lost else 1.0
    return Detection(*shares, p=float(p), n=len(right), null_of=other)


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"{i}. {' '.join(text.split())}" for i, text in enumerate(texts, 1))
