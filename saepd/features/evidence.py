"""What a latent means: tokens it promotes, feedback that excites it, what pushing it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.json_values import finite
from saepd.features.alone import Alone
from saepd.features.encode import Pairs
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.latent_page import Context, GivenLabel
from saepd.features.index.reading import as_index
from saepd.features.lens import logit_lens, token_text, writes_residual
from saepd.features.output_score import output_scores
from saepd.features.select import Features
from saepd.metrics.intervals import Interval, draw_weights, interval
from saepd.saes.abilities import abilities

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_N_DRAWS = 500


class Excited(NamedTuple):
    """A feedback text that excites a latent.

    Attributes:
        text: The prompt with the answer.
        activation: Activation of the latent where the text is read, in SAE activation units.
        perspectives: Names of the perspectives that said this.
    """

    text: str
    activation: float
    perspectives: tuple[str, ...]


@dataclass(frozen=True)
class LatentEvidence:
    """All that is said about one latent of one perspective.

    Attributes:
        latent: Id of the latent.
        perspective: Name of the perspective that the latent was chosen for.
        tokens: Tokens that the latent's decoder row promotes most (logit lens), blanks included.
        contexts: Feedback texts, of all perspectives, at whose reading position the latent is
            strongest.
        score: What the latent was chosen by: the effect in `Features`; unit-free.
        effect: Mean difference from the anchor over its standard deviation, for every
            perspective; unit-free.
        stability: Share of bootstrap draws in which the latent was chosen.
        density: Share of positions at which the latent fires.
        output_score: Change of the probability of the latent's own tokens when it is pushed; NaN
            where the SAE cannot steer.
        interval: 95% bootstrap interval of each effect over questions; None for a single question.
        against: Feedback texts at which the latent is weakest, to the questions of the strongest
            before any others.
        label: What the latent does in the texts of an index, in words; None without an index.
        label_auroc: How well the label holds on texts held out; None where nobody knows.
        given: What others say that it is about; none where the index was given no labels.
        index_contexts: Where it is strongest in the texts of the index, and where it is weakest.
        false_sign_rate: Chance that the effect has not the sign that was estimated; see
            `surenesses`. NaN where it was not computed.
        shared: Other perspectives that have chosen the latent, and whether with the ``same`` sign
            or the ``opposite`` one.
        gain: What it foretells of held-out questions, in nats a row; see `held_out_gain`.
        alone: What it does to the answers, written alone; see `run_alone`.
    """

    latent: int
    perspective: str
    tokens: list[str]
    contexts: list[Excited]
    score: float
    effect: dict[str, float]
    stability: float
    density: float
    output_score: float
    interval: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    against: list[Excited] = field(default_factory=list)
    label: str | None = None
    label_auroc: float | None = None
    given: tuple[GivenLabel, ...] = ()
    index_contexts: list[Context] = field(default_factory=list)
    false_sign_rate: float = math.nan
    shared: dict[str, str] = field(default_factory=dict)
    gain: Interval | None = None
    alone: Alone | None = None

    def to_dict(self) -> dict[str, Any]:
        """The evidence as JSON values; None where a score was never computed."""
        lists = {
            name: [one._asdict() for one in getattr(self, name)]
            for name in ("contexts", "against", "given", "index_contexts")
        }
        # JSON knows no NaN, which is what latents that were not screened have.
        scores = {
            name: finite(value)
            for name, value in (
                ("score", self.score),
                ("stability", self.stability),
                ("output_score", self.output_score),
                ("false_sign_rate", self.false_sign_rate),
            )
        }
        alone = None if self.alone is None else self.alone.to_dict()
        gain = None if self.gain is None else self.gain._asdict()
        return asdict(self) | lists | scores | {"alone": alone, "gain": gain}


def explain(
    model: TransformerBridge,
    sae: SAE[Any],
    pairs: Pairs,
    features: Features,
    n: int = 5,
    n_contexts: int = 3,
    *,
    index: FeatureIndex | None = None,
) -> list[LatentEvidence]:
    """Evidence for the n strongest latents of a perspective.

    Of an SAE that cannot steer, output scores are NaN, and latents that do not write into the
    residual stream promote no tokens.

    Args:
        model: The language model.
        sae: The dictionary that the latents are of.
        pairs: The encoded feedback, from `encode_pairs`.
        features: The latents chosen for the perspective, from `select_features`.
        n: Number of latents that are explained at most.
        n_contexts: Number of texts for, and of texts against, that each latent is shown in.
        index: What latents do in other texts, for labels and contexts.

    Returns:
        One piece of evidence for each latent, the strongest first.

    Raises:
        InputError: numbers that are not whole, or feedback or an index of another SAE.
    """
    check_number("the number of latents to explain", n, at_least=1, whole=True)
    check_number("the number of contexts", n_contexts, at_least=0, whole=True)
    if pairs.latents.shape[1] != sae.cfg.d_sae:
        raise InputError(
            f"the feedback was encoded in {pairs.latents.shape[1]} latents, and this SAE has "
            f"{sae.cfg.d_sae}: give the SAE that it was encoded with"
        )
    index = None if index is None else as_index(index, sae)
    latents = features.latents[:n]
    tokens = [[]] * len(latents)
    if writes_residual(sae):
        tokens = logit_lens(model, sae, latents).tolist()
    scores = torch.full((len(latents),), float("nan"))
    if abilities(sae).writes:
        scores = output_scores(model, sae, latents)
    effects, intervals = {}, {}
    chosen = pairs.latents[:, latents]
    for perspective in pairs.perspectives:
        rows = pairs.of(perspective)
        effects[perspective] = chosen[rows].mean(0) / (chosen[rows].std(0) + 1e-6)
        questions = [pairs.rows[i].item for i in rows.tolist()]
        intervals[perspective] = _intervals(chosen[rows].double().numpy(), questions)
    result = []
    for i, latent in enumerate(latents.tolist()):
        contexts = _contexts(pairs, latent, n_contexts)
        result.append(
            LatentEvidence(
                latent=latent,
                perspective=features.perspective,
                tokens=[token_text(model.tokenizer, t) for t in tokens[i]],
                contexts=contexts,
                score=float(features.effect[i]),
                effect={name: float(values[i]) for name, values in effects.items()},
                stability=float(features.stability[i]),
                density=float(features.density[i]),
                output_score=float(scores[i]),
                interval={name: values[i] for name, values in intervals.items()},
                against=_against(pairs, latent, contexts, n_contexts),
                **_indexed(index, latent, n_contexts),
            )
        )
    return result


def _indexed(index: FeatureIndex | None, latent: int, n: int) -> dict[str, Any]:
    """What an index says of a latent."""
    if index is None:
        return {}
    page = index.page(latent)
    strongest = [context for context in page.contexts if context.kind == "top"][:n]
    weakest = [context for context in page.contexts if context.kind == "weakest"]
    return {
        "label": page.label,
        "label_auroc": page.label_auroc,
        "given": page.given,
        "index_contexts": strongest + weakest,
    }


def _intervals(
    values: Float[np.ndarray, "rows k"], questions: Sequence[str]
) -> list[tuple[float, float] | None]:
    """95% intervals of the mean over the standard deviation of each column, over questions."""
    weights = draw_weights(questions, 0, _N_DRAWS)
    weights = weights / weights.sum(1, keepdims=True)
    means = weights @ values
    spreads = np.sqrt(np.maximum(weights @ values**2 - means**2, 0))
    intervals = [interval(column) for column in (means / (spreads + 1e-6)).T]
    return [None if one is None else (one.low, one.high) for one in intervals]


def _against(pairs: Pairs, latent: int, contexts: Sequence[Excited], n: int) -> list[Excited]:
    """The texts that excite a latent least, answers to the questions of its contexts first."""
    strongest = {context.text for context in contexts}
    asked = {
        row.item
        for row, text in zip(pairs.rows, pairs.positive_texts, strict=True)
        if text in strongest
    }
    activation = pairs.positive_latents[:, latent]
    order = sorted(
        range(len(pairs.rows)),
        key=lambda i: (pairs.rows[i].item not in asked, float(activation[i])),
    )
    excited: dict[str, Excited] = {}
    for row in order:
        text = pairs.positive_texts[row]
        if len(excited) == n:
            break
        if text not in strongest:
            excited.setdefault(text, Excited(text, float(activation[row]), pairs.said_by[text]))
    return list(excited.values())


def _contexts(pairs: Pairs, latent: int, n: int) -> list[Excited]:
    """The texts that excite a latent most, each of them once."""
    activation = pairs.positive_latents[:, latent]
    excited: dict[str, Excited] = {}
    for row in activation.argsort(descending=True).tolist():
        if float(activation[row]) <= 0 or len(excited) == n:
            break
        text = pairs.positive_texts[row]
        excited.setdefault(text, Excited(text, float(activation[row]), pairs.said_by[text]))
    return list(excited.values())
