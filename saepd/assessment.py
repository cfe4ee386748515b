"""Every measure of how sure a model is of its answers, for closed options and for free text.

An item's answers are its options. Where it has none, they are what the model writes: samples of the
base model and a text of every perspective, clustered by the rule of `saepd.epistemic`; a cluster is
as probable as its texts together, among all that were written. From there on both are one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from saepd.baselines import answered
from saepd.branches import score_continuations
from saepd.directions import Direction
from saepd.epistemic import EpistemicConfig, cluster_by_f1
from saepd.errors import InputError
from saepd.generation import generate_branches
from saepd.iterative_prompting import (
    FREE_TEXT,
    iterate_over_options,
    iterate_over_samples,
    uncertainty_over_options,
)
from saepd.prompts import ReadoutConfig, item_prompt, letters
from saepd.readout import fit_temperature, option_offsets, read_options
from saepd.scales import fit_kl_budget
from saepd.schema import Feedback, Item
from saepd.sway import Sway, sway
from saepd.uncertainty import (
    branch_disagreement,
    entropy,
    least_confidence,
    perspective_disagreement,
    small_margin,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

# Options that hold less than this together are hardly among what the model would say.
MIN_MASS = 1e-9

# Score -> what it is. Each is higher where the model is less sure.
SCORES = {
    "least_confidence": "1 less the largest probability",
    "least_confidence_scaled": "the same at the fitted temperature",
    "entropy": "entropy of the answers, nats",
    "small_margin": "1 less the gap between the two largest probabilities",
    "branch_disagreement": "Jensen-Shannon divergence of base and perspectives, nats",
    "perspective_disagreement": "Jensen-Shannon divergence of the perspectives alone, nats",
    "sway": "largest total variation that a direction causes within the KL budget",
    "ease_of_flip": "KL budget's coefficient over the smallest that flips the answer; 0 if none",
    "epistemic": "mutual information of a first and a second answer, nats",
}


@dataclass(frozen=True)
class AssessmentConfig:
    """How items are assessed.

    Attributes:
        readout: How options are read, and free text is asked for.
        kl_budget: Nats on neutral prompts; how strongly a direction may sway answers.
        epistemic: How free text is sampled and clustered.
        max_new_tokens: Of each sampled text, which also ends with its line.
        seed: Of the sampling.
    """

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    kl_budget: float = 0.1
    epistemic: EpistemicConfig = field(default_factory=EpistemicConfig)
    max_new_tokens: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """How the scores of options become probabilities.

    Attributes:
        temperature: Of what perspectives say, of sway and of ``least_confidence_scaled``.
        offsets: Options -> what is taken off their scores, nats; see `saepd.readout.centred`.
    """

    temperature: float = 1.0
    offsets: Mapping[tuple[str, ...], Float[Tensor, " options"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Assessment:
    """What is known about one item's answers.

    Attributes:
        item: Its id.
        answers: Its options, or for free text one text of each cluster.
        names: Of the branches: ``base``, then the perspectives.
        branches: Probability of each answer, at the reading's temperature; NaN if unreadable.
        mass: Probability that the options hold together in each branch; of free text, NaN.
        scores: Every name in `SCORES`; NaN where the score is undefined.
        flip: Perspective -> smallest multiple of the budget that flips the answer; inf if none.
        warning: Why not to trust the scores, or an empty string.
    """

    item: str
    answers: tuple[str, ...]
    names: tuple[str, ...]
    branches: Float[np.ndarray, "branches answers"]
    mass: Float[np.ndarray, " branches"]
    scores: Mapping[str, float]
    flip: Mapping[str, float]
    warning: str = ""


def fit_reading(
    model: TransformerBridge,
    items: Sequence[Item],
    rows: Sequence[Feedback] = (),
    config: ReadoutConfig | None = None,
    *,
    centre: bool = False,
) -> Reading:
    """A temperature from what people answered, and offsets from the items alone if asked for.

    Args:
        model: The language model.
        items: Those that will be assessed; those in free text are passed over.
        rows: Feedback on options; without any, the temperature is 1.
        config: How options are read.
        centre: Take off what the base model gives options whatever is asked, over all questions
            here that share them; see `saepd.readout.option_offsets`.

    Raises:
        InputError: whatever `read_options` refuses.
    """
    chosen = [row for row in rows if row.options and (row.answer or row.distribution)]
    asked = {row.item: row.as_item() for row in chosen}
    if centre:
        asked |= {item.id: item for item in items if item.options}
    if not asked:
        return Reading()
    found = list(asked.values())
    scores = read_options(model, found, [], config)
    offsets = option_offsets(scores, found) if centre else {}
    if not chosen:
        return Reading(offsets=offsets)
    by_id = {item.id: row.scores[0] for item, row in zip(found, scores, strict=True)}
    centred = [by_id[row.item] - offsets.get(row.options, 0.0) for row in chosen]
    return Reading(fit_temperature(centred, [answered(row) for row in chosen]), offsets)


def assess(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Sequence[Direction] = (),
    reading: Reading | None = None,
    config: AssessmentConfig | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Assessment]:
    """All scores of every item, with options or without.

    Args:
        model: The language model.
        items: What is asked; ids must differ.
        directions: One per perspective; without any, only what the base model says is scored.
        reading: From `fit_reading`; raw probabilities by default.
        config: Settings.
        progress: Called with what is being done, the step, and the number of steps.

    Returns:
        In the order of the items.

    Raises:
        InputError: no items, two with one id, or whatever a step refuses.
    """
    config, reading = config or AssessmentConfig(), reading or Reading()
    if not items:
        raise InputError("no items to assess: give at least one")
    if len({item.id for item in items}) < len(items):
        raise InputError("two items have the same id: give each its own")
    report = progress or (lambda *_: None)
    report("finding the coefficients of the KL budget", 0, 3)
    budgeted = fit_kl_budget(model, directions, config.kl_budget) if directions else []
    report("reading answers", 1, 3)
    closed = [item for item in items if item.options]
    free = [item for item in items if not item.options]
    answers = _over_options(model, closed, directions, reading, config)
    answers += _over_samples(model, free, directions, config)
    report("swaying answers", 2, 3)
    swayed = _sway(model, answers, budgeted)
    report("done", 3, 3)
    names = ("base", *(direction.perspective for direction in directions))
    found = {own.item.id: _assessment(own, swayed.get(own.item.id), names) for own in answers}
    return [found[item.id] for item in items]


@dataclass(frozen=True)
class _Answers:
    """One item's answers under every branch.

    Attributes:
        item: What was asked.
        prompt: The text it was asked with.
        texts: What was scored behind it.
        answers: What the texts are, or what each cluster of them is called.
        scores: Log-likelihoods of the texts, nats.
        read: From scores to log-probs of the answers at a temperature.
        temperature: Of the branches.
        epistemic: Uncertainty of that name, nats.
        mass: Of the options together.
        warning: What is wrong, if anything.
    """

    item: Item
    prompt: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    scores: Float[Tensor, "branches texts"]
    read: Callable[[Float[Tensor, "branches texts"], float], Float[Tensor, "branches answers"]]
    temperature: float
    epistemic: float
    mass: Float[np.ndarray, " branches"]
    warning: str = ""

    @property
    def log_probs(self) -> Float[Tensor, "branches answers"]:
        return self.read(self.scores.double(), self.temperature)

    @property
    def readable(self) -> bool:
        return bool(len(self.answers)) and bool(self.scores.isfinite().any(-1).all())


def _over_options(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Sequence[Direction],
    reading: Reading,
    config: AssessmentConfig,
) -> list[_Answers]:
    import torch

    if not items:
        return []
    found: list[_Answers] = []
    scored = read_options(model, items, directions, config.readout)
    repeated = iterate_over_options(model, items, config.readout)
    for item, own, again in zip(items, scored, repeated, strict=True):
        offset = reading.offsets.get(item.options, torch.zeros(len(item.options))).double()
        warning, least = own.warning, float(own.mass.min())
        if not warning and not least >= MIN_MASS:
            warning = f"item {item.id!r}: the options hold only {least:.1e} of the probability"
        letter = config.readout.readout == "letter"
        found.append(
            _Answers(
                item=item,
                prompt=item_prompt(model, item.prompt, item.options, config.readout),
                texts=tuple(letters(len(item.options))) if letter else item.options,
                answers=item.options,
                scores=own.scores,
                read=lambda s, t, offset=offset: ((s - offset) / t).log_softmax(-1),
                temperature=reading.temperature,
                epistemic=uncertainty_over_options(again, offset),
                mass=own.mass.double().numpy(),
                warning=warning,
            )
        )
    return found


def _over_samples(
    model: TransformerBridge,
    items: Sequence[Item],
    directions: Sequence[Direction],
    config: AssessmentConfig,
) -> list[_Answers]:
    import torch

    if not items:
        return []
    prompts = [item_prompt(model, item.prompt, (), config.readout) for item in items]
    sampling = replace(FREE_TEXT, max_new_tokens=config.max_new_tokens, seed=config.seed)

    def naming(index: int, answer: str) -> str:
        return item_prompt(model, items[index].prompt, (), config.readout, named=answer)

    sampled = iterate_over_samples(model, prompts, naming, config.epistemic, sampling)
    own = [list(one.responses) for one in sampled]
    if directions:
        drawn = replace(sampling, temperature=config.epistemic.temperature)
        written = generate_branches(model, prompts, directions, drawn)
        for texts, branches in zip(own, written, strict=True):
            texts += [text for one in branches[1:] if (text := " ".join(one.text.split()))]
    pools = [tuple(dict.fromkeys(texts)) for texts in own]
    some = [i for i, pool in enumerate(pools) if pool]
    scored = {}
    if some:
        rows = score_continuations(
            model, [prompts[i] for i in some], [pools[i] for i in some], directions
        )
        scored = {i: row.log_probs for i, row in zip(some, rows, strict=True)}
    found: list[_Answers] = []
    for i, (item, pool) in enumerate(zip(items, pools, strict=True)):
        centre_of = cluster_by_f1(pool, config.epistemic.similarity)
        centres = sorted(set(centre_of))
        member = torch.tensor([[c == centre for c in centre_of] for centre in centres])
        n_empty, n = sampled[i].n_empty, config.epistemic.n_samples
        found.append(
            _Answers(
                item=item,
                prompt=prompts[i],
                texts=pool,
                answers=tuple(pool[centre] for centre in centres),
                scores=scored.get(i, torch.empty(1 + len(directions), 0)),
                read=lambda s, t, member=member: _clustered(s, member),
                temperature=1.0,
                epistemic=sampled[i].uncertainty,
                mass=np.full(1 + len(directions), np.nan),
                warning=f"item {item.id!r}: {n_empty} of {n} sampled answers were empty"
                if n_empty
                else "",
            )
        )
    return found


def _clustered(
    scores: Float[Tensor, "branches texts"], member: Float[Tensor, "answers texts"]
) -> Float[Tensor, "branches answers"]:
    """Log-probs of clusters among the texts that there are."""
    own = scores.unsqueeze(-2).masked_fill(~member.bool(), -np.inf)
    return own.logsumexp(-1).log_softmax(-1)


def _sway(
    model: TransformerBridge, answers: Sequence[_Answers], budgeted: Sequence[Direction]
) -> dict[str, Sway]:
    """Item id -> sway, of the items that have answers to sway between."""
    several = [own for own in answers if own.readable and len(own.answers) > 1]
    if not budgeted or not several:
        return {}
    found = sway(
        model,
        [own.prompt for own in several],
        [own.texts for own in several],
        budgeted,
        [lambda s, own=own: own.read(s, own.temperature) for own in several],
    )
    return {own.item.id: one for own, one in zip(several, found, strict=True)}


def score_answers(
    raw: Float[Tensor, " answers"],
    branches: Float[Tensor, "branches answers"],
    swayed: Sway | None,
    epistemic: float,
) -> dict[str, float]:
    """Every name in `SCORES`, of an item with two answers or more; NaN where it is undefined.

    Args:
        raw: What the base model says at temperature 1, log-probs in nats.
        branches: Log-probs of the base and every perspective, as they are read.
        swayed: By each direction; None where there are none.
        epistemic: Uncertainty of that name, nats.
    """
    found = dict.fromkeys(SCORES, float("nan"))
    found["least_confidence"] = float(least_confidence(raw))
    found["least_confidence_scaled"] = float(least_confidence(branches[0]))
    found["entropy"] = float(entropy(raw))
    found["small_margin"] = float(small_margin(raw))
    if len(branches) > 1:
        found["branch_disagreement"] = float(branch_disagreement(branches))
    if len(branches) > 2:
        found["perspective_disagreement"] = float(perspective_disagreement(branches))
    if swayed is not None:
        found["sway"] = float(swayed.moved.max())
        found["ease_of_flip"] = swayed.ease
    found["epistemic"] = epistemic
    return found


def _assessment(own: _Answers, swayed: Sway | None, names: tuple[str, ...]) -> Assessment:
    scores = dict.fromkeys(SCORES, float("nan"))
    warning, flip = own.warning, {}
    if not own.readable:
        branches = np.full((len(names), len(own.answers)), np.nan)
        warning = warning or f"item {own.item.id!r}: no answer has any probability"
    elif len(own.answers) == 1:
        # Whatever was written says the same: there is nothing to be unsure of.
        branches = np.ones((len(names), 1))
        scores = dict.fromkeys(SCORES, 0.0)
    else:
        raw, read = own.read(own.scores.double(), 1.0)[0], own.log_probs
        branches = read.exp().numpy()
        scores = score_answers(raw, read, swayed, own.epistemic)
        if swayed is not None:
            flip = dict(zip(names[1:], swayed.flip.tolist(), strict=True))
    return Assessment(own.item.id, own.answers, names, branches, own.mass, scores, flip, warning)
