"""Directions of a folder, with the model and the SAE they were made with."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.fields import names_given
from saepd.cli.options import load_model_and_sae, load_only_model
from saepd.common.errors import InputError
from saepd.directions.lineage import read_lineage
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction

# Options that say which model or which SAE, and what else of the folder's they take along.
_TAKES_ALONG = {"model": ("revision",), "sae": ("sae_id",), "block": ("sae", "sae_id")}


@dataclass(frozen=True)
class SteeringOptions:
    """Which directions steer.

    Attributes:
        steering: Folder of directions, as saepd fit writes it, or hf://USER/NAME on the hub; it
            names its model and its SAE.
        strength: Number that the coefficient of every direction is multiplied by.
    """

    steering: Path
    strength: float = 1.0
    given: Set[str] = names_given()

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InputError(f"the strength is {self.strength}: it must be finite")

    def load(self, where: ModelConfig) -> tuple[TransformerBridge, list[Direction]]:
        """The model and its directions, loaded as the folder says unless told otherwise.

        Raises:
            InputError: whatever cannot be loaded, or belongs to another model or SAE.
        """
        chosen = self.chosen(where)
        from saepd.directions.saving import load_from_disk

        lineage = read_lineage(self.steering)
        unsaid = lineage.where is None and lineage.sae_fingerprint is not None
        if unsaid or self.given & {"sae", "sae_id", "block"}:
            model, sae = load_model_and_sae(chosen)
        else:
            model, sae = load_only_model(chosen), None
        try:
            directions = load_from_disk(self.steering, model, sae)
        except InputError as error:
            flags = [f"--{name.replace('_', '-')}" for name in _named(self.given)]
            if not flags:
                raise
            raise InputError(
                f"{error} (without {' and '.join(flags)}, what {self.steering} names is loaded)"
            ) from error
        if self.strength == 1:
            return model, directions
        return model, [self.strength * direction for direction in directions]

    def chosen(self, where: ModelConfig) -> ModelConfig:
        """Which model and SAE: those that the folder names, but for what was given as options."""
        recorded = read_lineage(self.steering).where
        if recorded is None:
            return where
        given = {f.name: getattr(where, f.name) for f in fields(where) if f.name in self.given}
        dropped = {name for one in given for name in _TAKES_ALONG.get(one, ())} - given.keys()
        return replace(recorded, **dict.fromkeys(dropped), **given)

    def readout(self, asked: ReadoutConfig) -> ReadoutConfig:
        """How options are read: as the directions' readout was fitted, but for what was given."""
        fitted = read_lineage(self.steering).readout
        if fitted is None:
            return asked
        given = {f.name: getattr(asked, f.name) for f in fields(asked) if f.name in self.given}
        return replace(fitted, **given)

    def check(self, merge: MergeConfig) -> None:
        """Refuse what no model is needed to refuse.

        Raises:
            InputError: no directions, a perspective with the base model's name, or weights for
                another number of branches.
        """
        names = read_lineage(self.steering).perspectives
        if "base" in names:
            raise InputError(
                f"{self.steering} holds a direction named base, which is what the model without "
                "steering is called: give it another name"
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f"{self.steering} holds several directions of {twice[0]!r}, which here would count "
                "as several perspectives: give each a name of its own, or in Python one branch of "
                "them all"
            )
        if merge.weights and len(merge.weights) != len(names) + 1:
            raise InputError(
                f"--weights are {len(merge.weights)}, but there are {len(names) + 1} branches: "
                f"base, {', '.join(names)}"
            )


def _named(given: Set[str]) -> list[str]:
    return [name for name in ("model", "sae", "sae_id", "block") if name in given]
