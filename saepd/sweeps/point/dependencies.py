"""What each stage of a point depends on: the one table behind keys, scheduling and cost.

An ingredient is anything that changes what a stage computes. Most are settings. The model, the SAE,
the questions and the feedback can be named in two ways: by content, once they are loaded, which
makes the keys of results that are kept (`saepd.sweeps.point.stages`); or by the settings that lead
to them, which tells which points will share a stage before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from saepd.fit.config import FitConfig
from saepd.sweeps.space.parameters import PointConfig


@dataclass(frozen=True)
class Stage:
    """One kind of stage.

    Attributes:
        version: Raised when its code computes something else: older results are then not used.
        ingredients: What it reads itself.
        after: Kinds of the stages whose results it takes.
    """

    version: int
    ingredients: tuple[str, ...]
    after: tuple[str, ...] = ()


STAGES = {
    "prefix": Stage(1, ("model", "site", "questions", "positions")),
    "feedback": Stage(2, ("model", "site", "sae", "feedback", "reading")),
    "directions": Stage(2, ("selection", "edit"), after=("feedback",)),
    "branches": Stage(2, ("coefficient",), after=("prefix", "directions")),
    "readout": Stage(1, ("merge",), after=("branches",)),
}


def stage_key(kind: str, depends_on: Mapping[str, Any]) -> str:
    """Name of a stage's result: equal only where everything it depends on is equal.

    Args:
        kind: A key of `STAGES`.
        depends_on: Its ingredients and the keys of the stages before it, as JSON values.
    """
    version = STAGES[kind].version
    text = json.dumps([kind, version, depends_on], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stage_keys(ingredients: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> key of every stage whose ingredients are given."""
    keys: dict[str, str] = {}
    for kind, stage in STAGES.items():
        if all(name in ingredients for name in stage.ingredients):
            given = {name: ingredients[name] for name in stage.ingredients}
            keys[kind] = stage_key(kind, given | {name: keys[name] for name in stage.after})
    return keys


def fit_ingredients(fit: FitConfig) -> dict[str, Any]:
    """The ingredients that settings of the fit are, whatever the model and the feedback."""
    edit = asdict(replace(fit.direction, coefficient=1.0))
    return {
        "positions": fit.direction.positions,
        "reading": [fit.features.encoding, asdict(fit.readout)],
        "selection": asdict(fit.features),
        "edit": edit,
        # A KL budget finds its own coefficient.
        "coefficient": 1.0 if fit.direction.kl_budget else fit.direction.coefficient,
    }


def keys_by_settings(config: PointConfig) -> dict[str, str]:
    """Kind -> what tells the stage apart from those of other points, with nothing loaded."""
    where, asked = asdict(config.where), [asdict(config.task), asdict(config.draw)]
    named = {
        "model": where,
        "site": where,
        "sae": where,
        "questions": asked,
        "feedback": asked,
        "merge": asdict(config.merge),
    }
    return stage_keys(named | fit_ingredients(config.fit))
