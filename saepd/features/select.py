"""Which SAE latents tell the answers of one perspective: score, select, and test for stability.

Every feedback row gives a pair: the item with the answer (positive) and something to compare it
with. That is the item with each of its options in turn (``options``), the item without an answer
(``anchor``, as in the paper), or the pairs of all other perspectives (``others``). Against the
bare item, the strongest latents are those that tell the end of a prompt from the end of an answer,
whatever was answered; the options take these out, and the other perspectives take out what all
agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.features.config import Contrast, FeatureConfig, ReadAt
from saepd.feedback.schema import Feedback
from saepd.models.positions import prompt_mask
from saepd.models.prompts import check_lengths, item_prompt, pad_left, prompt_ids
from saepd.models.wording import ReadoutConfig
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_ROWS_PER_PASS = 32


@dataclass(frozen=True)
class Firing:
    """How often each latent fires in each text, at counted positions and at all others."""

    counted: Float[Tensor, "texts d_sae"]
    n_counted: Float[Tensor, " texts"]
    special: Float[Tensor, "texts d_sae"]
    n_special: Float[Tensor, " texts"]

    def density(
        self, texts: Sequence[int]
    ) -> tuple[Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
        """Shares of counted and of other positions of some texts at which each latent fires."""
        chosen = sorted(set(texts))
        return (
            self.counted[chosen].sum(0) / self.n_counted[chosen].sum().clamp(min=1),
            self.special[chosen].sum(0) / self.n_special[chosen].sum().clamp(min=1),
        )


@dataclass(frozen=True)
class Pairs:
    """Latents and residuals of every feedback row's positive and anchor, at one position.

    Rows are those of the feedback; ``density`` is the share of counted positions at which each
    latent fires, ``special_density`` the same over special tokens and first positions. Both are
    of the rows' own texts, which ``texts`` names by their index in ``firing``.
    """

    rows: list[Feedback]
    positive_texts: list[str]
    latents: Float[Tensor, "rows d_sae"]
    residuals: Float[Tensor, "rows d_model"]
    density: Float[Tensor, " d_sae"]
    special_density: Float[Tensor, " d_sae"]
    positive_latents: Float[Tensor, "rows d_sae"]
    texts: list[list[int]] = field(default_factory=list)
    firing: Firing | None = None

    @property
    def perspectives(self) -> list[str]:
        """Names in the order of their first row."""
        return list(dict.fromkeys(row.perspective for row in self.rows))

    def select(self, rows: Sequence[Feedback]) -> Pairs:
        """The pairs of some of the rows, in their order, without encoding anything again."""
        index = {row.id: i for i, row in enumerate(self.rows)}
        chosen = [index[row.id] for row in rows]
        texts = [self.texts[i] for i in chosen]
        assert self.firing is not None
        density, special_density = self.firing.density([t for row in texts for t in row])
        return replace(
            self,
            texts=texts,
            density=density,
            special_density=special_density,
            rows=list(rows),
            positive_texts=[self.positive_texts[i] for i in chosen],
            latents=self.latents[chosen],
            residuals=self.residuals[chosen],
            positive_latents=self.positive_latents[chosen],
        )

    def of(self, perspective: str) -> Int[Tensor, " n"]:
        """Indices of one perspective's rows."""
        chosen = [i for i, row in enumerate(self.rows) if row.perspective == perspective]
        return torch.tensor(chosen)


@dataclass(frozen=True)
class Features:
    """The latents chosen for one perspective, strongest first.

    Attributes:
        perspective: Whose.
        latents: Their ids.
        effect: Standardised mean difference per latent; unit-free, signed.
        value: Mean difference per latent, in SAE activation units.
        stability: Share of bootstrap draws in which the latent was among the k.
        density: Share of positions at which the latent fires.
        n_candidates: Latents that passed the density screen.
        n_unstable: Latents among the k strongest that were dropped as unstable.
    """

    perspective: str
    latents: Int[Tensor, " k"]
    effect: Float[Tensor, " k"]
    value: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]
    density: Float[Tensor, " k"]
    n_candidates: int
    n_unstable: int


@dataclass(frozen=True)
class PairTexts:
    """The texts of one feedback row; a mean over several texts is weighted."""

    positive: list[tuple[str, float]]
    anchor: list[tuple[str, float]]


def pair_texts(
    model: TransformerBridge, row: Feedback, contrast: Contrast, readout: ReadoutConfig
) -> PairTexts:
    """What one feedback row compares with what.

    A comment follows the answer, or stands in its place. A distribution is the weighted mean of
    its options. Items without options can only be compared with the bare item.

    Raises:
        InputError: contrast ``options`` and a row without options.
    """
    bare = item_prompt(model, row.prompt, row.options, readout)
    joint = "" if bare[-1:].isspace() else " "
    comment = row.comment.strip() if row.comment else ""
    if row.answer is not None:
        said = [(f"{row.answer}. {comment}" if comment else row.answer, 1.0)]
    elif row.distribution is not None:
        said = [
            (option, share)
            for option, share in zip(row.options, row.distribution, strict=True)
            if share > 0
        ]
    else:
        said = [(comment, 1.0)]
    positive = [(f"{bare}{joint}{text}", weight) for text, weight in said]
    if contrast != "options":
        return PairTexts(positive, [(bare, 1.0)])
    if not row.options:
        raise InputError(
            f"feedback {row.id!r} has no options to compare its answer with: use contrast anchor"
        )
    share = 1 / len(row.options)
    return PairTexts(positive, [(f"{bare}{joint}{option}", share) for option in row.options])


def encode_pairs(
    model: TransformerBridge,
    sae: SAE[Any],
    rows: Sequence[Feedback],
    config: FeatureConfig,
    readout: ReadoutConfig,
) -> Pairs:
    """Latents of every row's positive minus its anchor; equal texts are encoded once.

    Raises:
        InputError: no rows, or a text longer than the model's context.
    """
    if not rows:
        raise InputError("there is no feedback to encode")
    texts = [pair_texts(model, row, config.contrast, readout) for row in rows]
    unique = list(dict.fromkeys(text for t in texts for text, _ in (*t.positive, *t.anchor)))
    index = {text: i for i, text in enumerate(unique)}
    latents, residuals, firing = _encode_texts(model, sae, unique, config.read_at)
    texts_of = [[index[text] for text, _ in (*t.positive, *t.anchor)] for t in texts]
    density, special_density = firing.density(range(len(unique)))

    def mean(values: Tensor, weighted: list[tuple[str, float]]) -> Tensor:
        weights = torch.tensor([weight for _, weight in weighted])
        return weights / weights.sum() @ values[[index[text] for text, _ in weighted]]

    positives = torch.stack([mean(latents, t.positive) for t in texts])
    return Pairs(
        rows=list(rows),
        positive_texts=[max(t.positive, key=lambda part: part[1])[0] for t in texts],
        latents=positives - torch.stack([mean(latents, t.anchor) for t in texts]),
        residuals=torch.stack(
            [mean(residuals, t.positive) - mean(residuals, t.anchor) for t in texts]
        ),
        density=density,
        special_density=special_density,
        positive_latents=positives,
        texts=texts_of,
        firing=firing,
    )


def select_features(pairs: Pairs, perspective: str, config: FeatureConfig) -> Features:
    """Score all latents for one perspective and keep the k strongest that are stable.

    The score is the mean difference over its standard error, with the median standard error of
    the candidates added to the denominator, so that latents that hardly vary do not win by that
    (Tusher et al. 2001, eq. 1), divided by the root of the number of rows.

    Raises:
        InputError: fewer than two rows of the perspective, or (``others``) of the rest.
    """
    own = pairs.of(perspective)
    rest = torch.tensor([i for i in range(len(pairs.rows)) if i not in set(own.tolist())])
    if len(own) < 2:
        raise InputError(f"perspective {perspective!r} has {len(own)} feedback rows: 2 are needed")
    if config.contrast == "others" and len(rest) < 2:
        raise InputError(
            "contrast 'others' needs feedback of at least one more perspective: add some, or use "
            "contrast options or anchor"
        )
    fires = pairs.latents.abs().sum(0) > 0
    if config.k == 0:
        value = mean_difference(pairs, pairs.latents, perspective, config.contrast)
        latents = fires.nonzero().squeeze(-1)
        none = torch.full((len(latents),), float("nan"))
        density = pairs.density[latents]
        return Features(perspective, latents, none, value[latents], none, density, len(latents), 0)
    candidates = fires & (pairs.density <= config.max_density)
    # A latent that is silent at counted positions but not at the others only marks the template.
    candidates &= ~((pairs.density == 0) & (pairs.special_density > 0))
    ids = candidates.nonzero().squeeze(-1)
    if len(ids) == 0:
        raise InputError(
            f"no latent passes the density screen for {perspective!r}: raise max_density "
            f"(it is {config.max_density})"
        )
    k = min(config.k, len(ids))
    generator = torch.Generator().manual_seed(config.bootstrap_seed)
    ones = torch.ones(1, len(own)), torch.ones(1, max(1, len(rest)))
    effect = _effect(pairs.latents[:, ids], own, rest, ones[0], ones[1], config.contrast)[0]
    draws = [
        torch.stack(
            [
                torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).float()
                for _ in range(config.n_bootstrap)
            ]
        )
        for n in (len(own), max(1, len(rest)))
    ]
    strength = _effect(pairs.latents[:, ids], own, rest, draws[0], draws[1], config.contrast).abs()
    chosen_in = torch.zeros_like(strength).scatter_(1, strength.topk(k, dim=1).indices, 1.0)
    stability = chosen_in.mean(0)
    best = effect.abs().topk(k).indices
    stable = best[stability[best] >= config.min_stability]
    if len(stable) == 0:
        # Nothing is stable: say so through the counts, and keep the single most stable latent.
        stable = best[stability[best].argmax()].unsqueeze(0)
    latents = ids[stable]
    return Features(
        perspective=perspective,
        latents=latents,
        effect=effect[stable],
        value=mean_difference(pairs, pairs.latents, perspective, config.contrast)[latents],
        stability=stability[stable],
        density=pairs.density[latents],
        n_candidates=len(ids),
        n_unstable=k - len(stable),
    )


def overlap(features: Sequence[Features]) -> dict[tuple[str, str], float]:
    """Jaccard index of the chosen latents of every two perspectives; 0 disjoint, 1 the same."""
    result = {}
    for i, a in enumerate(features):
        for b in features[i + 1 :]:
            first, second = set(a.latents.tolist()), set(b.latents.tolist())
            union = first | second
            result[a.perspective, b.perspective] = len(first & second) / max(1, len(union))
    return result


def mean_difference(
    pairs: Pairs, values: Float[Tensor, "rows width"], perspective: str, contrast: Contrast
) -> Float[Tensor, " width"]:
    """Mean of one perspective's rows; less the mean of all other rows for contrast ``others``."""
    own = torch.zeros(len(pairs.rows), dtype=torch.bool)
    own[pairs.of(perspective)] = True
    mean = values[own].mean(0)
    return mean - values[~own].mean(0) if contrast == "others" else mean


def _effect(
    latents: Float[Tensor, "rows k"],
    own: Int[Tensor, " n"],
    rest: Int[Tensor, " m"],
    own_counts: Float[Tensor, "draws n"],
    rest_counts: Float[Tensor, "draws m"],
    contrast: Contrast,
) -> Float[Tensor, "draws k"]:
    """Moderated standardised mean difference for every draw of the rows."""
    mean, variance = _moments(latents[own], own_counts)
    squared_error = variance / len(own)
    if contrast == "others":
        other_mean, other_variance = _moments(latents[rest], rest_counts)
        mean = mean - other_mean
        squared_error = squared_error + other_variance / len(rest)
    error = squared_error.sqrt()
    return mean / (error + error.median(dim=1, keepdim=True).values + 1e-12) / len(own) ** 0.5


def _moments(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ rows
    return mean, (weights @ rows.square() - mean.square()).clamp(min=0)


def _encode_texts(
    model: TransformerBridge, sae: SAE[Any], texts: Sequence[str], read_at: ReadAt
) -> tuple[Float[Tensor, "texts d_sae"], Float[Tensor, "texts d_model"], Firing]:
    """Latents and residuals at one position of each text, and how often each latent fires."""

    hook_name = sae_hook_name(sae)
    rows = [prompt_ids(model.tokenizer, text) for text in texts]
    check_lengths(model, rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    latents = torch.empty(len(rows), sae.cfg.d_sae)
    residuals = torch.empty(len(rows), int(model.cfg.d_model))
    firing = Firing(
        torch.empty(len(rows), sae.cfg.d_sae),
        torch.empty(len(rows)),
        torch.empty(len(rows), sae.cfg.d_sae),
        torch.empty(len(rows)),
    )
    found: list[Tensor] = []
    for first in range(0, len(order), _ROWS_PER_PASS):
        chosen = order[first : first + _ROWS_PER_PASS]
        batch = pad_left(model, [rows[i] for i in chosen])
        found.clear()
        with torch.inference_mode():
            model.run_with_hooks(
                batch.tokens,
                attention_mask=batch.attention,
                position_ids=batch.position_ids,
                fwd_hooks=[(hook_name, lambda h, hook: found.append(h))],
                stop_at_layer=1 + int(hook_name.split(".")[1]),
            )
            h = found[0].float()
            f = sae.encode(h)
            fires = (f > 0).float()
            counted = prompt_mask("all", batch.tokens, batch.attention, model.tokenizer)
            special = batch.attention.bool() & ~counted
            firing.counted[chosen] = torch.einsum("bt,btl->bl", counted.float(), fires).cpu()
            firing.special[chosen] = torch.einsum("bt,btl->bl", special.float(), fires).cpu()
            firing.n_counted[chosen] = counted.sum(1).float().cpu()
            firing.n_special[chosen] = special.sum(1).float().cpu()
            if read_at == "last":
                h, f = h[:, -1], f[:, -1]
            else:
                weights = counted.float() / counted.sum(1, keepdim=True).clamp(min=1)
                h = torch.einsum("bt,btd->bd", weights, h)
                f = torch.einsum("bt,btl->bl", weights, f)
        latents[chosen], residuals[chosen] = f.cpu(), h.cpu()
    return latents, residuals, firing
