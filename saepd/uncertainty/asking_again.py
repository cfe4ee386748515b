"""Ask a model its question again with one answer named, as `epistemic` needs it.

Iterative prompting (Abbasi Yadkori et al. 2024, arXiv 2406.02543v2, section 3) asks once plainly
and once for each answer, with that answer named in the prompt. All of these prompts begin with the
question, so they run as one: the question once, and what follows it as continuations that share
their own beginnings (`saepd.branches.engine.texts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from saepd.branches.run import score_continuations
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.metrics.same_answer import cluster_by_f1
from saepd.models.prompts import item_prompt, letters
from saepd.models.wording import ReadoutConfig
from saepd.uncertainty.config import EpistemicConfig
from saepd.uncertainty.epistemic import (
    epistemic_uncertainty,
    sampled_epistemic_uncertainty,
)

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Where answers in free text end: at the end of their line, or after a sentence or two.
FREE_TEXT = SamplingConfig(max_new_tokens=24, stop=("\n",))

TextScores = Float[np.ndarray, " texts"]


class Repeated(NamedTuple):
    """What a model answers plainly, and after each of the answers that were named to it.

    Attributes:
        first: Log-likelihood of each text after the plain prompt, nats.
        second: Log-likelihood of each text after each of the prompts that name an answer, nats.
    """

    first: TextScores
    second: Float[np.ndarray, "named texts"]


class Sampled(NamedTuple):
    """Answers in free text, and what the model says about them.

    Attributes:
        responses: Each text that was written, once, in the order of sampling.
        centre_of: For each of them, the place of the one it matches; see `cluster_by_f1`.
        log_probs: Log-likelihood of each text after the plain prompt, nats.
        uncertainty: Epistemic, nats; 0 where one text was written throughout, NaN where none was.
        n_empty: Samples that ended before they began; they are no answers and are left out.
    """

    responses: tuple[str, ...]
    centre_of: tuple[int, ...]
    log_probs: TextScores
    uncertainty: float
    n_empty: int


def ask_again(
    model: TransformerBridge,
    prompts: Sequence[str],
    naming: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
) -> list[Repeated]:
    """Score texts after each prompt, and after the prompts that name an answer to it.

    Args:
        model: The language model.
        prompts: The plain ones.
        naming: For each of them, the prompts that name an answer. They must begin as it does; see
            `saepd.models.prompts.naming_answer`.
        texts: For each prompt, what is scored after it and after those that name an answer.

    Raises:
        InputError: prompts that share no beginning, or whatever `score_continuations` refuses.
    """
    heads: list[str] = []
    continuations: list[list[str]] = []
    for prompt, named, read in zip(prompts, naming, texts, strict=True):
        head = _shared_beginning([prompt, *named])
        heads.append(head)
        rests = [full[len(head) :].lstrip(" ") for full in (prompt, *named)]
        # The rest alone is scored too: what is behind it has that probability taken off.
        continuations.append([part for rest in rests for part in (rest, *_behind(rest, read))])
    scored = score_continuations(model, heads, continuations, [])
    repeated: list[Repeated] = []
    for named, read, (scores, _) in zip(naming, texts, scored, strict=True):
        rows = scores[0].double().numpy().reshape(1 + len(named), 1 + len(read))
        after = rows[:, 1:] - rows[:, :1]
        repeated.append(Repeated(after[0], after[1:]))
    return repeated


def iterate_over_options(
    model: TransformerBridge,
    items: Sequence[Item],
    config: ReadoutConfig | None = None,
) -> list[Repeated]:
    """Ask each item 1 + n_options times: plainly, and with each of its options named.

    Args:
        model: The language model.
        items: Items with options.
        config: How options are read; text in plain style by default.

    Raises:
        InputError: an item without options, or whatever `ask_again` refuses.
    """
    config = config or ReadoutConfig()
    for item in items:
        if not item.options:
            raise InputError(f"item {item.id!r} has no options: sample answers to it instead")
    read = [
        letters(len(item.options)) if config.readout == "letter" else item.options for item in items
    ]
    asked = [(item.prompt, item.options, config) for item in items]
    prompts = [item_prompt(model, *one) for one in asked]
    naming = [[item_prompt(model, *one, named=o) for o in one[1]] for one in asked]
    return ask_again(model, prompts, naming, read)


def uncertainty_over_options(
    repeated: Repeated, offsets: Float[Tensor, " options"] | None = None
) -> float:
    """Epistemic uncertainty over closed options, nats: 0 to ln(options); NaN if none has any mass.

    Args:
        repeated: From `iterate_over_options`.
        offsets: Taken off every row's scores, see `saepd.readout.calibrate.option_offsets`.
    """
    offset = 0.0 if offsets is None else np.asarray(offsets, dtype=float)
    rows = np.vstack([repeated.first, repeated.second]) - offset
    best = rows.max(-1, keepdims=True)
    if not np.isfinite(best).all():
        return float("nan")
    # Far below 1 each, since texts are long: scaled before they underflow.
    shares = np.exp(rows - best)
    shares /= shares.sum(-1, keepdims=True)
    return epistemic_uncertainty(shares[0], shares[1:])


def iterate_over_samples(
    model: TransformerBridge,
    prompts: Sequence[str],
    naming: Callable[[int, str], str],
    config: EpistemicConfig | None = None,
    sampling: SamplingConfig = FREE_TEXT,
) -> list[Sampled]:
    """Sample answers in free text, then ask again with one of each cluster named.

    Args:
        model: The language model.
        prompts: The plain ones.
        naming: The prompt that names an answer to the prompt of this index.
        config: How many samples, their temperature, and when two match; the paper's by default.
        sampling: Where texts end, and the seed; its temperature is the config's.

    Raises:
        InputError: whatever `generate_branches` and `ask_again` refuse.
    """
    config = config or EpistemicConfig()
    written: list[list[str]] = [[] for _ in prompts]
    for number in range(config.n_samples):
        drawn = replace(sampling, temperature=config.temperature, seed=sampling.seed + number)
        branches = generate_branches(model, prompts, [], drawn)
        for texts, [base] in zip(written, branches, strict=True):
            texts.append(" ".join(base.text.split()))
    unique = [tuple(dict.fromkeys(text for text in texts if text)) for texts in written]
    centre_of = [cluster_by_f1(texts, config.similarity) for texts in unique]
    several = [i for i, texts in enumerate(unique) if len(texts) > 1]
    centres = {i: sorted(set(centre_of[i])) for i in several}
    repeated: Mapping[int, Repeated] = {}
    if several:
        asked = ask_again(
            model,
            [prompts[i] for i in several],
            [[naming(i, unique[i][centre]) for centre in centres[i]] for i in several],
            [unique[i] for i in several],
        )
        repeated = dict(zip(several, asked, strict=True))
    sampled: list[Sampled] = []
    for i, responses in enumerate(unique):
        log_probs = repeated[i].first if i in repeated else np.zeros(len(responses))
        uncertainty = 0.0 if responses else float("nan")
        if i in repeated:
            # Only the rows of centres are read.
            conditional = np.full((len(responses), len(responses)), np.nan)
            conditional[centres[i]] = repeated[i].second
            uncertainty = sampled_epistemic_uncertainty(responses, log_probs, conditional, config)
        n_empty = sum(not text for text in written[i])
        sampled.append(Sampled(responses, tuple(centre_of[i]), log_probs, uncertainty, n_empty))
    return sampled


def _shared_beginning(prompts: Sequence[str]) -> str:
    """What all prompts begin with, up to a place where tokens are sure to end.

    Raises:
        InputError: they share not even a word.
    """
    # Of sorted texts the first and the last share what all share.
    first, last = min(prompts), max(prompts)
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    # Each prompt keeps at least its last character for what follows.
    n_common = next(differs, min(map(len, prompts)) - 1)
    # A line break may stay, while a space belongs to the word behind it.
    cut = re.match(r".*(?:\n|(?= ))", first[:n_common], re.DOTALL)
    head = cut[0].rstrip(" ") if cut else ""
    if not head.strip():
        raise InputError(
            f"the prompt {prompts[0]!r} and those that name an answer to it begin differently: "
            "begin all of them with the question"
        )
    return head


def _behind(rest: str, texts: Sequence[str]) -> list[str]:
    joint = "" if rest[-1:].isspace() else " "
    return [rest + joint + text for text in texts]
