"""From feedback to one direction per perspective, with everything recorded that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError
from saepd.directions.direction import DEFAULT_POSITIONS, Direction
from saepd.directions.edits import Mode
from saepd.features.select import FeatureConfig, Features, Pairs, encode_pairs, select_features
from saepd.feedback.reading import feedback_hash
from saepd.feedback.schema import Feedback
from saepd.fit.budget import fit_kl_budget
from saepd.models.positions import parse_positions
from saepd.models.prompts import ReadoutConfig

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class DirectionConfig:
    """How chosen latents become an edit.

    Attributes:
        mode: ``add`` the mean difference; ``clamp`` latents to their mean at the positives;
            ``scale`` them by ``factor``; or ``ablate`` them.
        positions: Where the edit acts; see `saepd.models.positions`.
        coefficient: Multiplies the edit, where no KL budget is set.
        kl_budget: Nats; finds the largest coefficient whose mean KL on neutral prompts stays
            under it. 0 keeps ``coefficient``.
        factor: For mode ``scale``.
    """

    mode: Mode = "add"
    positions: str = DEFAULT_POSITIONS
    coefficient: float = 1.0
    kl_budget: float = 0.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        parse_positions(self.positions)
        if self.kl_budget < 0:
            raise InputError(f"the KL budget is {self.kl_budget}: it must be 0 or more")


@dataclass(frozen=True)
class FitConfig:
    """All that turns feedback into directions."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


@dataclass(frozen=True)
class Fit:
    """Directions, the features they are made of, and the encoded feedback behind both."""

    directions: list[Direction]
    features: list[Features]
    pairs: Pairs


def fit_directions(
    model: TransformerBridge,
    sae: SAE[Any],
    rows: Sequence[Feedback],
    config: FitConfig | None = None,
) -> Fit:
    """Select features of every perspective in the feedback and make a direction of each.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        rows: Feedback of one or more perspectives.
        config: Settings.

    Raises:
        InputError: whatever `encode_pairs`, `select_features` or `Direction` refuses.
    """
    config = config or FitConfig()
    return fit_pairs(
        model, sae, encode_pairs(model, sae, rows, config.features, config.readout), config
    )


def fit_pairs(model: TransformerBridge, sae: SAE[Any], pairs: Pairs, config: FitConfig) -> Fit:
    """`fit_directions` for feedback that is already encoded."""
    features = [select_features(pairs, name, config.features) for name in pairs.perspectives]
    story = lineage(model, sae, pairs.rows, config)
    directions = [_direction(sae, pairs, chosen, config, story) for chosen in features]
    return Fit(scaled_to_config(model, directions, config.direction), features, pairs)


def lineage(
    model: TransformerBridge, sae: SAE[Any], rows: Sequence[Feedback], config: FitConfig
) -> dict[str, Any]:
    """What a direction was made from, as JSON values: model, SAE, feedback, settings, versions."""
    from importlib.metadata import version

    from saepd.models.load import weights_fingerprint
    from saepd.saes.load import sae_fingerprint, sae_hook_name

    packages = ("saepd", "torch", "transformers", "transformer-lens", "sae-lens")
    return {
        "model": str(model.cfg.model_name),
        "model_fingerprint": weights_fingerprint(model),
        "weight_processing": "none",
        "sae": f"{sae.cfg.metadata.model_name}/{sae_hook_name(sae)}",
        "sae_fingerprint": sae_fingerprint(sae),
        "feedback_sha256": feedback_hash(rows),
        "n_feedback": len(rows),
        "config": asdict(config),
        "versions": {name: version(name) for name in packages},
    }


def scaled_to_config(
    model: TransformerBridge, directions: Sequence[Direction], config: DirectionConfig
) -> list[Direction]:
    """The directions with the coefficients that the configuration asks for."""
    if config.kl_budget:
        return fit_kl_budget(model, directions, config.kl_budget)
    return [direction.scaled(config.coefficient) for direction in directions]


def _direction(
    sae: SAE[Any], pairs: Pairs, features: Features, config: FitConfig, story: dict[str, Any]
) -> Direction:
    import torch

    from saepd.saes.load import sae_hook_name

    mode = config.direction.mode
    if mode == "add":
        values = features.value
    elif mode == "clamp":
        own = pairs.of(features.perspective)
        values = pairs.positive_latents[own][:, features.latents].mean(0)
    else:
        values = torch.full((len(features.latents),), config.direction.factor)
    return Direction(
        perspective=features.perspective,
        hook_name=sae_hook_name(sae),
        mode=mode,
        positions=config.direction.positions,
        latents=features.latents,
        values=values,
        sae=sae,
        lineage=story,
    )
