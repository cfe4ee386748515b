"""Feedback as activations: what latents and residuals do at each answer and at what it is beside.

Every feedback row gives a pair: the item with the answer (positive) and something to compare it
with. That is the item with each of its options in turn (``options``), the item without an answer
(``anchor``, as in the paper), or the pairs of all other perspectives (``others``). Against the
bare item, the strongest latents are those that tell the end of a prompt from the end of an answer,
whatever was answered; the options take these out, and the other perspectives take out what all
agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.features.config import Contrast, FeatureConfig, ReadAt
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Feedback
from saepd.models.prompts import item_prompt
from saepd.models.sites import SiteBatch, read_site
from saepd.models.tokens import prompt_ids
from saepd.models.wording import ReadoutConfig
from saepd.saes.abilities import encode
from saepd.saes.fits import check_sae
from saepd.saes.load import sae_hook_name, written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


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
        return list(self._indices)

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
        return torch.tensor(self._indices.get(perspective, []), dtype=torch.long)

    @cached_property
    def said_by(self) -> dict[str, tuple[str, ...]]:
        """Positive text -> names of the perspectives whose rows have it."""
        names_by_text: dict[str, dict[str, None]] = {}
        for row, text in zip(self.rows, self.positive_texts, strict=True):
            names_by_text.setdefault(text, {})[row.perspective] = None
        return {text: tuple(names) for text, names in names_by_text.items()}

    @cached_property
    def _indices(self) -> dict[str, list[int]]:
        """Perspective -> indices of its rows; gone through once, however many there are."""
        indices: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            indices.setdefault(row.perspective, []).append(i)
        return indices


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
    feedback: FeedbackLike,
    config: FeatureConfig,
    readout: ReadoutConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> Pairs:
    """Latents of every row's positive minus its anchor; equal texts are encoded once.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        feedback: Rows of one or more perspectives, a file of them or a pandas frame.
        config: Where latents are read, and what they are compared with.
        readout: How a question is put to the model.
        progress: Called with what is being done, the texts that are done, and how many there are.

    Raises:
        InputError: an SAE that does not fit the model, a text longer than the model's context,
            activations that are not finite, no rows, two with one id, or rows that are wrong.
    """
    check_sae(sae, model)
    check_part("config", config, FeatureConfig)
    check_part("readout", readout, ReadoutConfig)
    rows = as_feedback(feedback)
    texts = [pair_texts(model, row, config.contrast, readout) for row in rows]
    unique = list(dict.fromkeys(text for t in texts for text, _ in (*t.positive, *t.anchor)))
    index = {text: i for i, text in enumerate(unique)}
    latents, residuals, firing = _encode_texts(model, sae, unique, config.read_at, progress)
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


class _Encoded(NamedTuple):
    """One text: latents and residual where it is read, and how often each latent fires in it.

    The residual is what the site holds at which latents are written.
    """

    latents: Float[Tensor, " d_sae"]
    residual: Float[Tensor, " d_model"]
    counted: Float[Tensor, " d_sae"]
    n_counted: Float[Tensor, ""]
    special: Float[Tensor, " d_sae"]
    n_special: Float[Tensor, ""]


def _encode_texts(
    model: TransformerBridge,
    sae: SAE[Any],
    texts: Sequence[str],
    read_at: ReadAt,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Float[Tensor, "texts d_sae"], Float[Tensor, "texts d_model"], Firing]:
    """Latents and residuals at one position of each text, and how often each latent fires."""
    hook_name, written = sae_hook_name(sae), written_site(sae)
    n_done = 0

    def encode_batch(batch: SiteBatch) -> list[_Encoded]:
        h = batch.held[written].float()
        f = encode(sae, batch.held[hook_name].float())
        fires = (f > 0).float()
        counted = batch.counted.float()
        special = batch.prompts.attention - counted
        columns = (
            f[:, -1] if read_at == "last" else batch.mean(f),
            h[:, -1] if read_at == "last" else batch.mean(h),
            torch.einsum("bt,btl->bl", counted, fires),
            counted.sum(1),
            torch.einsum("bt,btl->bl", special, fires),
            special.sum(1),
        )
        if not all(bool(read.isfinite().all()) for read in columns[:2]):
            raise InputError(
                f"activations at {hook_name} are not finite: run the model in bfloat16 or float32"
            )
        nonlocal n_done
        n_done += len(h)
        if progress is not None:
            progress("encoding feedback", n_done, len(texts))
        return [_Encoded(*row) for row in zip(*(c.cpu() for c in columns), strict=True)]

    rows = [prompt_ids(model.tokenizer, text) for text in texts]
    # The latents, whether they fire, and the encoder's own intermediate values.
    held = 16 * sae.cfg.d_sae
    encoded = read_site(model, [hook_name, written], rows, encode_batch, collected_bytes=held)
    latents, residuals, *firing = (torch.stack(parts) for parts in zip(*encoded, strict=True))
    return latents, residuals, Firing(*firing)
