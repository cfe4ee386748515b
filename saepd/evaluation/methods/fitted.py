"""Directions learned from the fold's feedback, and their controls: what `saepd fit` does.

All kinds are learned side by side on the same captured questions, written into the model at
coefficient 1, and read with the readouts that were fitted with them, as `saepd answer` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from saepd.directions.direction import Direction
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.evaluation.fold import Fold, Predictions
from saepd.fit.asked import ask
from saepd.fit.at_sites import by_site
from saepd.fit.candidates import Kind
from saepd.fit.config import LearningConfig
from saepd.fit.gating import Gated, with_gates
from saepd.fit.kinds import LearnedKinds, learn_kinds
from saepd.fit.learn import gates_of, made_of, readers_of, saes_written, unit_rows
from saepd.fit.sparse import Dictionary
from saepd.readout.options import read_options
from saepd.saes.load import written_site

_Name = TypeVar("_Name", bound=str)

KINDS: tuple[Kind, ...] = ("latents", "vector", "random", "shuffled")


def predict_fitted(fold: Fold, kind: Kind) -> Predictions:
    """The learned directions' answers to the test items."""
    return fold.once("fitted predictions", lambda: _predictions(fold))[kind]


def predict_as_fit(fold: Fold) -> Predictions:
    """The answers to the test items of what `saepd.learn_directions` gives."""
    if gates(fold) is None:
        return predict_fitted(fold, "latents")
    return _read_tests(fold, {"as fit": as_fit(fold)})["as fit"]


def as_fit(fold: Fold) -> Mapping[str, Direction]:
    """Perspective -> its direction of chosen latents, gated where that is supported."""
    return fold.once("as fit", lambda: _gated(fold))


def fitted_directions(fold: Fold, kind: Kind) -> Mapping[str, Direction]:
    """Perspective -> its learned direction, at coefficient 1."""
    return fold.once("fitted", lambda: _directions(fold))[kind]


def learned(fold: Fold) -> LearnedKinds:
    """Everything that was learned from the fold's feedback."""

    def compute() -> LearnedKinds:
        saes = by_site(fold.cache.saes)
        asked = ask(
            fold.model,
            fold.feedback,
            [written_site(sae) for sae in saes],
            fold.readout,
            DEFAULT_POSITIONS,
            lambda *_: None,
            readers=readers_of(saes),
        )
        dictionary = Dictionary(tuple(unit_rows(sae) for sae in saes))
        return learn_kinds(
            asked, dictionary, LearningConfig(), KINDS, seed=fold.seed, report=lambda *_: None
        )

    return fold.once("learned", compute)


def _directions(fold: Fold) -> dict[Kind, dict[str, Direction]]:
    saes = saes_written(learned(fold), by_site(fold.cache.saes))
    by_kind = {}
    for kind in KINDS:
        directions = made_of(learned(fold), kind, saes, fold.readout, {})
        by_kind[kind] = {direction.perspective: direction for direction in directions}
    return by_kind


def gates(fold: Fold) -> Gated | None:
    """The gates of the learned latents; None where none are supported."""
    return fold.once(
        "gates",
        lambda: gates_of(
            learned(fold), "latents", fold.feedback, LearningConfig(), lambda *_: None
        ),
    )


def _gated(fold: Fold) -> Mapping[str, Direction]:
    plain, gated = fitted_directions(fold, "latents"), gates(fold)
    if gated is None:
        return plain
    lowest = saes_written(learned(fold), by_site(fold.cache.saes))[0]
    directions = with_gates(list(plain.values()), gated.gates, lowest)
    return {direction.perspective: direction for direction in directions}


def _predictions(fold: Fold) -> Mapping[Kind, Predictions]:
    sets: dict[Kind, Mapping[str, Direction]] = {k: fitted_directions(fold, k) for k in KINDS}
    return _read_tests(fold, sets)


def _read_tests(
    fold: Fold, sets: Mapping[_Name, Mapping[str, Direction]]
) -> Mapping[_Name, Predictions]:
    """Each test item under the directions of the perspectives that it is asked for."""
    predictions: dict[_Name, dict[tuple[str, str], np.ndarray]] = {one: {} for one in sets}
    for names in dict.fromkeys(fold.population_of.values()):
        pairs = [(one, name) for one in sets for name in names]
        branches = [sets[one][name] for one, name in pairs]
        items = [
            fold.task.by_id[id_] for id_, asked in fold.population_of.items() if asked == names
        ]
        for item, read in zip(
            items, read_options(fold.model, items, branches, fold.readout), strict=True
        ):
            for (one, name), row in zip(pairs, read.log_probs()[1:], strict=True):
                predictions[one][item.id, name] = row.exp().double().cpu().numpy()
    return predictions
