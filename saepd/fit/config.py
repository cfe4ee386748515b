"""All settings that turn feedback into directions."""

from __future__ import annotations

from dataclasses import dataclass, field

from saepd.common.errors import InputError
from saepd.directions.modes import DEFAULT_POSITIONS, EditMode
from saepd.features.config import FeatureConfig
from saepd.models.position_specs import parse_positions
from saepd.models.wording import ReadoutConfig


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

    mode: EditMode = "add"
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
class ScaleConfig:
    """What is tried.

    Attributes:
        n_latents: Numbers of latents, those with the strongest first-order effect on the loss.
        shared: Ridge penalties of the shared part; a question's effects are scaled so that their
            mean square over the chosen units sums to 1.
        own: Ridge penalties of each perspective's own part.
        readout: Ridge penalties of the shared biases, and of each perspective's own readout.
        n_folds: Of the cross-validation over questions.
    """

    n_latents: tuple[int, ...] = (32, 128, 512)
    shared: tuple[float, ...] = (0.001, 0.004, 0.016)
    own: tuple[float, ...] = (0.005, 0.02, 0.08)
    readout: tuple[float, float] = (0.01, 0.1)
    n_folds: int = 5
