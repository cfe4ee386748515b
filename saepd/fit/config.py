"""All settings that turn feedback into directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from saepd.common.checks import check_choice, check_number, check_numbers, check_part
from saepd.common.errors import InputError
from saepd.directions.modes import DEFAULT_POSITIONS, EDIT_MODES, EditMode
from saepd.features.config import FeatureConfig
from saepd.models.position_specs import parse_positions
from saepd.models.wording import ReadoutConfig

GateUse = Literal["auto", "always", "never"]
SiteUse = Literal["auto", "all"]


@dataclass(frozen=True)
class DirectionConfig:
    """How chosen latents become an edit.

    Attributes:
        mode: What is done to the chosen latents: ``add`` their mean difference, ``clamp`` them to
            their mean at the positives, ``scale`` them by the factor, or ``ablate`` them.
        positions: Where the edit acts: every, all, prompt, generated, answer, last(n) or
            after("text").
        coefficient: Number that multiplies the edit, where no KL budget is set.
        kl_budget: Nats that a direction may move the next token after neutral prompts, on average;
            the largest coefficient within it is found. 0 keeps the given coefficient.
        factor: What latents are multiplied by in mode ``scale``.

    Raises:
        InputError: a number is out of range, or the mode or the positions are unknown.
    """

    mode: EditMode = "add"
    positions: str = DEFAULT_POSITIONS
    coefficient: float = 1.0
    kl_budget: float = 0.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, EDIT_MODES)
        parse_positions(self.positions)
        check_number("the coefficient", self.coefficient)
        check_number("the KL budget", self.kl_budget, at_least=0)
        check_number("the factor", self.factor)


@dataclass(frozen=True)
class HandConfig:
    """How latents that were chosen by hand are written, and how strongly.

    Attributes:
        mode: What is done to the latents: ``add`` their values, ``scale`` them by these, ``clamp``
            them to these, or ``ablate`` them.
        positions: Where the edit acts: every, all, prompt, generated, answer, last(n) or
            after("text").
        strength: Number that multiplies the whole edit.
        relative_dose: Norm of what is written over the norm of the residual it is written into, on
            neutral prompts; the strength that gives it is found. 0 keeps the given strength.
        kl_budget: Nats that the edit may move the next token after neutral prompts, on average;
            the largest strength within it is found. 0 keeps the given strength.

    Raises:
        InputError: a value out of range, or two ways of saying how strongly.
    """

    mode: EditMode = "add"
    positions: str = DEFAULT_POSITIONS
    strength: float = 1.0
    relative_dose: float = 0.0
    kl_budget: float = 0.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, EDIT_MODES)
        parse_positions(self.positions)
        check_number("the strength", self.strength)
        check_number("the relative dose", self.relative_dose, at_least=0)
        check_number("the KL budget", self.kl_budget, at_least=0)
        said = {
            "strength": self.strength != 1,
            "relative dose": self.relative_dose > 0,
            "KL budget": self.kl_budget > 0,
        }
        if sum(said.values()) > 1:
            named = " and a ".join(name for name, is_set in said.items() if is_set)
            raise InputError(
                f"a {named} are given, and each alone says how strongly to steer: give one of them"
            )


@dataclass(frozen=True)
class FitConfig:
    """All that turns feedback into directions.

    Attributes:
        features: How latents are chosen.
        direction: How chosen latents become an edit.
        readout: How options are read.

    Raises:
        InputError: a part that is not of its class.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)

    def __post_init__(self) -> None:
        check_part("features", self.features, FeatureConfig)
        check_part("direction", self.direction, DirectionConfig)
        check_part("readout", self.readout, ReadoutConfig)


@dataclass(frozen=True)
class LearningConfig:
    """What learning chooses among, by cross-validation over questions.

    Attributes:
        n_latents: Number of latents that a direction is made of at most; 0 writes a dense vector
            instead, without the SAE.
        shared: Ridge penalties to try for what all perspectives write, in nats of an answer's mean
            loss per squared nat that it moves a question's options by; the smallest within a
            standard error of the best is taken that still gains over the readout alone.
        own: Ridge penalties to try for how far what each perspective writes is from what all write,
            in the unit of ``shared``; no difference at all is tried as well.
        biases: Ridge penalties to try for the position biases that all perspectives share; the
            smallest within a standard error of the best is taken.
        own_readout: Ridge penalties to try for each perspective's own temperature and biases; the
            largest within a standard error of the best is taken.
        n_folds: Number of folds of the cross-validation over questions; fewer where there are
            fewer questions.
        max_dose: Largest norm of what is written at a site, as a share of the residual's own norm.
        anyway: Steer even where cross-validation does not support it.
        gate: Whether each item's own prompt decides how much is written: ``always``, ``never``, or
            ``auto``, where cross-validation supports it.
        sites: At which sites directions write where SAEs of several are given: ``all`` of them, or
            ``auto``, at all or at the one that alone foretells held-out answers better.

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    n_latents: int = 64
    shared: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.016, 0.064)
    own: tuple[float, ...] = (0.005, 0.02, 0.08, 0.32)
    biases: tuple[float, ...] = (0.01, 0.04, 0.16)
    own_readout: tuple[float, ...] = (0.03, 0.1, 0.3, 10.0)
    n_folds: int = 10
    max_dose: float = 1.0
    anyway: bool = False
    gate: GateUse = "auto"
    sites: SiteUse = "auto"

    def __post_init__(self) -> None:
        check_number("n_latents", self.n_latents, at_least=0, whole=True)
        check_numbers("shared", self.shared, above=0)
        check_numbers("own", self.own, above=0)
        check_numbers("biases", self.biases, above=0)
        check_numbers("own_readout", self.own_readout, above=0)
        check_number("n_folds", self.n_folds, at_least=2, whole=True)
        check_number("max_dose", self.max_dose, above=0)
        check_choice("use of gates", self.gate, get_args(GateUse))
        check_choice("use of sites", self.sites, get_args(SiteUse))
