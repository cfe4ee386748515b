"""Directions with learned scales: from feedback to something that steers.

`saepd.fit.scales` learns how much of each candidate to write; here the candidates are latents of
an SAE, or whatever else has a vector, and what was learned becomes a direction. Either some latents
are chosen, or all of them share a ridge penalty, whichever predicts the feedback's own questions
better in cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from saepd.branches.gradients import option_gradients
from saepd.common.errors import InputError
from saepd.common.messages import shortlist
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, decoder_rows, scales_with_activation
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.targets import answered
from saepd.fit.config import FitConfig, ScaleConfig
from saepd.fit.learned import check_precision
from saepd.fit.recipe import lineage, scaled_to_config
from saepd.fit.scales import FittedScales, Row, fit_scales
from saepd.models.prompts import item_prompt
from saepd.readout.softmax import OptionValues, option_features
from saepd.saes.abilities import check_writes
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

Units = Float[np.ndarray, "units d_model"]


class Seen(NamedTuple):
    """What a row of feedback says, and what the model makes of its question.

    Attributes:
        question: Rows of one question have the same scores and gradients.
        perspective: Whose.
        scores: Log-likelihoods of the options without steering, nats.
        gradients: Nats of each option per residual unit.
        target: The answer, as a distribution.
    """

    question: str
    perspective: str
    scores: OptionValues
    gradients: Float[np.ndarray, "options d_model"]
    target: OptionValues


@dataclass(frozen=True)
class Learned:
    """Scales, and what they are scales of.

    Attributes:
        scales: From `fit_scales`.
        units: What one unit of each candidate writes.
        latents: Which latent each candidate is; None for axes of the residual stream.
    """

    scales: FittedScales
    units: Units
    latents: Int[np.ndarray, " units"] | None

    @property
    def vectors(self) -> dict[str, Float[np.ndarray, " d_model"]]:
        """Perspective -> what its direction writes at coefficient 1."""
        chosen = self.units[self.scales.units]
        return {name: values @ chosen for name, values in self.scales.values.items()}

    def direction(
        self, perspective: str, hook_name: str, sae: SAE[Any], **settings: Any
    ) -> Direction:
        """What steers towards a perspective, with any further fields of `Direction`."""
        if self.latents is None:
            vector = torch.from_numpy(self.vectors[perspective]).float()
            return Direction(perspective, hook_name, AddVector(vector), **settings)
        latents, values = self.latents[self.scales.units], self.scales.values[perspective]
        return Direction(perspective, hook_name, EditLatents(sae, latents, values), **settings)


@dataclass(frozen=True, repr=False)
class LearnedFit:
    """Directions, and the scales that they write.

    Attributes:
        directions: One direction for each perspective.
        learned: The scales, and what they are scales of.
    """

    directions: list[Direction]
    learned: Learned

    def __repr__(self) -> str:
        scales = self.learned.scales
        told = [f"{d.perspective!r}" for d in self.directions]
        return (
            f"LearnedFit({shortlist(told)}; scales of {len(scales.units)}; held-out loss "
            f"{min(scales.loss.values()):.3f}, without steering {scales.unsteered:.3f} nats)"
        )


def learn_directions(
    model: TransformerBridge,
    sae: SAE[Any],
    feedback: FeedbackLike,
    config: FitConfig | None = None,
    scales: ScaleConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> LearnedFit:
    """Learn directions of every perspective in the feedback.

    ``learned.scales`` says what is gained: the cross-validated loss of the best setting, and the
    loss of the model's own scores with the same readout (``unsteered``).

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        feedback: Rows with answers among options, of at least as many questions as there are
            folds; a file of them or a pandas frame.
        config: Readout, and what directions are scaled to; latents are chosen here, so its
            features are not used.
        scales: What is tried.
        progress: Called with what is being done, the step, and the number of steps.

    Raises:
        InputError: rows without an answer among options, one item in two wordings, an option
            without any probability, a model in half precision, another readout than the
            likelihood of the options' texts, another mode than ``add``, an SAE that cannot
            steer or normalises activations, or whatever `option_gradients` and `fit_scales` refuse.
    """
    check_writes(sae)
    config, scales = config or FitConfig(), scales or ScaleConfig()
    rows = as_feedback(feedback)
    check_precision(model)
    if scales_with_activation(sae):
        raise InputError(
            f"this SAE normalises activations ({sae.cfg.normalize_activations}), so no scale of "
            "its latents writes the same everywhere: take another SAE, or differences of means"
        )
    hook_name = sae_hook_name(sae)
    report: Callable[[str, int, int], None] = progress or (lambda *_: None)
    seen = _seen(model, rows, hook_name, config, report)
    report("trying settings of the scales", 0, 1)
    learned = learn_latents(sae, seen, scales)
    report("done", 1, 1)
    story = lineage(model, sae, rows, config)
    how = {
        "config": asdict(scales),
        "loss": min(learned.scales.loss.values()),
        "unsteered_loss": learned.scales.unsteered,
        "base_readout": learned.scales.base.tolist(),
    }
    directions = [
        learned.direction(
            name,
            hook_name,
            sae,
            positions=config.direction.positions,
            lineage={**story, "learned": {**how, "readout": readout.tolist()}},
        )
        for name, readout in learned.scales.readout.items()
    ]
    return LearnedFit(scaled_to_config(model, directions, config.direction), learned)


def learn_latents(sae: SAE[Any], seen: Sequence[Seen], config: ScaleConfig) -> Learned:
    """Scales of chosen latents or of all, whichever predicts the feedback better."""
    latents = np.arange(sae.cfg.d_sae)
    units = decoder(sae, latents)
    chosen = fit_scales(scale_rows(seen, units), config)
    whole = fit_all(seen, units, config)
    best = min(chosen, whole, key=lambda fit: min(fit.loss.values()))
    return Learned(best, units, latents)


def fit_all(seen: Sequence[Seen], units: Units, config: ScaleConfig) -> FittedScales:
    """Scales of every candidate, fitted in as many dimensions as the residual stream has.

    Of all scales a that write the same vector v = W^T a, a ridge penalty prefers those of least
    norm, a = W (W^T W)^-1 v. With M M = W^T W it is therefore the same to fit u of v = M u with
    that penalty, and a = W M^-1 u.
    """
    values, axes = np.linalg.eigh(units.T @ units)
    root = axes @ np.diag(np.sqrt(np.maximum(values, 0))) @ axes.T
    fitted = fit_scales(scale_rows(seen, root), replace(config, n_latents=(len(root),)))
    back = units @ np.linalg.pinv(root)
    return replace(
        fitted,
        units=np.arange(len(units)),
        values={name: back @ u for name, u in fitted.values.items()},
    )


def scale_rows(seen: Sequence[Seen], units: Units) -> list[Row]:
    """What one unit of each candidate does to the options of the feedback's questions."""
    n_positions = max(len(row.scores) for row in seen)
    effects = {
        question: centred_gradients(row.gradients) @ units.T
        for question, row in {row.question: row for row in seen}.items()
    }
    return [
        Row(
            row.question,
            row.perspective,
            option_features(row.scores, n_positions),
            effects[row.question],
            row.target,
        )
        for row in seen
    ]


def centred_gradients(gradients: Float[np.ndarray, "options d"]) -> Float[np.ndarray, "options d"]:
    """Gradients less their mean: what moves all options alike moves none of them."""
    return (gradients - gradients.mean(0)).astype(np.float64)


def decoder(sae: SAE[Any], latents: Int[np.ndarray, " units"]) -> Units:
    """What one unit of each latent writes into the residual stream."""

    return decoder_rows(sae, torch.from_numpy(latents)).cpu().double().numpy()


def _seen(
    model: TransformerBridge,
    rows: Sequence[Feedback],
    hook_name: str,
    config: FitConfig,
    report: Callable[[str, int, int], None],
) -> list[Seen]:
    readout = config.readout
    if readout.readout != "text" or readout.length_normalised:
        raise InputError(
            "scales are learned on the likelihood of the options' texts: leave the readout at "
            "text, and not normalised by length"
        )
    if config.direction.mode != "add":
        raise InputError(f"learned scales are added: leave out mode {config.direction.mode!r}")
    targets = [answered(row) for row in rows]
    asked: dict[str, Item] = {}
    for row in rows:
        item = row.as_item()
        if asked.setdefault(row.item, item) != item:
            raise InputError(
                f"feedback {row.id!r} asks item {row.item!r} in other words, or with other "
                "options, than a row before it: give it another item"
            )
    items = list(asked.values())
    found = option_gradients(
        model,
        [item_prompt(model, item.prompt, item.options, readout) for item in items],
        [item.options for item in items],
        hook_name,
        positions=config.direction.positions,
        progress=partial(report, "gradients of questions"),
    )
    for item, own in zip(items, found, strict=True):
        if not bool(own.log_probs.isfinite().all() and own.gradients.isfinite().all()):
            raise InputError(
                f"item {item.id!r}: the model gives an option no probability, or its gradient is "
                "no number: leave the item out"
            )
    known = {item.id: own for item, own in zip(items, found, strict=True)}
    return [
        Seen(
            row.item,
            row.perspective,
            known[row.item].log_probs[0].double().numpy(),
            known[row.item].gradients[0, :, 0].numpy(),
            target,
        )
        for row, target in zip(rows, targets, strict=True)
    ]
