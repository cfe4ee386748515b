"""A folder of finished parts, so that a run that was interrupted does only what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, field_validator

from saepd.branches.neutral import SideEffects
from saepd.common.errors import InputError
from saepd.common.files import write_atomically, write_json
from saepd.common.messages import shortened
from saepd.evaluation.fold import Options, Predictions

SETTINGS_FILE = "config.json"


class Prediction(NamedTuple):
    """One method's answer to one test item of one draw, for one perspective.

    Attributes:
        probabilities: Uniform where the method had no readable answer.
        readable: Whether it had one.
    """

    draw: int
    method: str
    item: str
    perspective: str
    probabilities: Options
    readable: bool = True


class Parts:
    """One file for each draw and method, in a folder that belongs to one configuration.

    Args:
        out: The run's folder.
        config: All that the numbers depend on, but for which methods there are: more methods can
            be added to a finished folder.

    Raises:
        InputError: the folder belongs to another configuration.
    """

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self.out = out
        text = json.dumps(config, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = out / SETTINGS_FILE
        if path.exists():
            _check_same(path, json.loads(text))
        else:
            write_json(path, config)
        self.folder = out / "parts" / self.key

    def path(self, draw: int, method: str) -> Path:
        """Where a part is kept."""
        return self.folder / f"{draw}-{method}.json"

    def write(
        self,
        draw: int,
        method: str,
        predictions: Predictions,
        effects: Mapping[str, SideEffects] | None = None,
    ) -> None:
        """Keep one method's predictions of one draw; NaN is kept as no answer.

        Args:
            draw: Number of the draw.
            method: Id of the method.
            predictions: What the method predicted.
            effects: Perspective -> what its branch does to neutral text, if there is one.

        Raises:
            InputError: only part of a prediction is a number.
        """
        rows: list[list[Any]] = []
        for (item, perspective), probabilities in predictions.items():
            finite = np.isfinite(probabilities)
            if finite.any() and not finite.all():
                raise InputError(
                    f"the method {method} gives {probabilities.tolist()} for item "
                    f"{shortened(item)}: expected probabilities, or all NaN where there is no "
                    "readable answer"
                )
            # Digits beyond these differ between machines, and mean nothing.
            shares = [round(float(p), 9) for p in probabilities] if finite.all() else None
            rows.append([item, perspective, shares, len(probabilities)])
        neutral = {name: [round(x, 9) for x in effect] for name, effect in (effects or {}).items()}
        part = {"draw": draw, "method": method, "side_effects": neutral, "predictions": rows}
        write_atomically(self.path(draw, method), json.dumps(part).encode())

    def read(self, draw: int, method: str) -> list[Prediction]:
        """The predictions that `write` kept."""
        return [
            Prediction(
                draw,
                method,
                item,
                perspective,
                np.full(n, 1 / n) if shares is None else np.array(shares),
                shares is not None,
            )
            for item, perspective, shares, n in self._stored(draw, method).predictions
        ]

    def side_effects(self, draw: int, method: str) -> dict[str, SideEffects]:
        """Perspective -> what its branch does to neutral text; empty if the method has none."""
        return dict(self._stored(draw, method).side_effects)

    def _stored(self, draw: int, method: str) -> _Part:
        path = self.path(draw, method)
        try:
            return _Part.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} is no part that an evaluation wrote: delete it, and the same command "
                "computes it again"
            ) from error


class _Part(BaseModel):
    """What a file of a part holds; predictions as (item, perspective, shares, options)."""

    side_effects: dict[str, SideEffects]
    predictions: list[tuple[str, str, list[FiniteFloat] | None, Annotated[int, Field(ge=1)]]]

    @field_validator("predictions")
    @classmethod
    def _check_lengths(cls, rows: list[tuple[str, str, list[float] | None, int]]) -> Any:
        # No question has so many options; a file that says so would be given that much memory.
        if any(n > 100_000 or (shares is not None and len(shares) != n) for *_, shares, n in rows):
            raise ValueError("shares are not one for each option")
        return rows


def _check_same(path: Path, config: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{path} is not what an evaluation wrote: use another folder")
    for name in sorted(set(before) | set(config)):
        if before.get(name) != config.get(name):
            # A version is no setting that one could choose again.
            way = "delete it" if name.startswith("version") else "the same settings to go on"
            raise InputError(
                f"{path.parent} holds an evaluation with {name} "
                f"{shortened(before.get(name))}, not {shortened(config.get(name))}: use another "
                f"folder, or {way}"
            )
