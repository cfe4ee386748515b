"""Which results are of content that has changed since: a corrected file, other weights, older code.

A store keeps what it has. So a data file that was corrected in place leaves the old results beside
the new ones, under the same settings; these must not be compared with each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from saepd.sweeps.point.content import content_of
from saepd.sweeps.point.identity import FILE_PARAMETERS, code_version
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.parameters import ModelConfig

if TYPE_CHECKING:
    import pandas as pd

# What a point notes of its loaded model and SAE, which a hub may change under the same name.
_LOADED = {"weights": "model", "dictionary": "sae"}
_MODEL_SETTINGS = [f.name for f in fields(ModelConfig)]


def changes(outcomes: Sequence[PointOutcome]) -> list[str]:
    """For each outcome, what has changed since it was measured: such as "data, code", or nothing.

    A file is compared with what it holds now, or, where it is not here, with what the latest
    outcome found in it; a model and an SAE also with what the latest outcome loaded.
    """
    latest: dict[str, str | None] = {}
    for outcome in outcomes:
        content = outcome.result.get("content", {})
        names = (*FILE_PARAMETERS, *_LOADED)
        latest |= {_place(outcome, name): content[name] for name in names if content.get(name)}
    on_disk: dict[str, dict[Any, str | None]] = {
        name: {
            value: content_of(value)
            for value in {o.parameters.get(name) for o in outcomes}
            if isinstance(value, str)
        }
        for name in FILE_PARAMETERS
    }
    code = code_version()
    descriptions: list[str] = []
    for outcome in outcomes:
        content: Mapping[str, Any] = outcome.result.get("content", {})
        changed = [
            name
            for name in FILE_PARAMETERS
            if content.get(name)
            and content[name]
            != (on_disk[name].get(outcome.parameters.get(name)) or latest[_place(outcome, name)])
        ]
        changed += [
            what
            for name, what in _LOADED.items()
            if content.get(name)
            and what not in changed
            and content[name] != latest[_place(outcome, name)]
        ]
        descriptions.append(
            ", ".join([*changed, *(["code"] if content.get("code") != code else [])])
        )
    return descriptions


def current(frame: pd.DataFrame) -> pd.DataFrame:
    """The points of which nothing has changed since they were measured."""
    return frame.loc[frame["changed"] == "", :] if "changed" in frame else frame


def told_changes(frame: pd.DataFrame) -> str:
    """One sentence about the points that `current` leaves out; empty where there are none."""
    changed = frame.loc[frame["changed"] != "", "changed"] if "changed" in frame else ()
    if not len(changed):
        return ""
    counts = Counter(changed)
    reasons = "; ".join(f"{what}: {n}" for what, n in counts.most_common())
    return (
        f"{len(changed)} points are left out, since what they were measured on has changed "
        f"({reasons}); saepd.read_sweep has them, marked in the column changed"
    )


def _place(outcome: PointOutcome, name: str) -> str:
    """What a content is of: the file that a parameter names, or all that says what is loaded."""
    parameters = outcome.parameters
    settings = _MODEL_SETTINGS if name in _LOADED else [name]
    return json.dumps([name, *(parameters.get(setting) for setting in settings)])
