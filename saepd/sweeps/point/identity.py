"""What tells a point from all others: its settings, what its files hold, and the code's version."""

from __future__ import annotations

import hashlib
import json

from saepd.sweeps.point.content import content_of
from saepd.sweeps.point.dependencies import STAGES
from saepd.sweeps.space.parameters import PointConfig

# Parameters that may name a file or a folder.
FILE_PARAMETERS = ("data", "items", "feedback", "model", "sae")


def point_key(config: PointConfig) -> str:
    """Equal for equal settings of equal content, whichever file or order they came in."""
    text = json.dumps([config.flat(), point_content(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def point_content(config: PointConfig) -> dict[str, str | None]:
    """What settings do not tell: each file's hash, by the parameter that names it, and the code.

    The hash is None where the parameter names nothing local.
    """
    named = vars(config.task) | vars(config.where)
    hashes = {name: content_of(named[name]) for name in FILE_PARAMETERS}
    return hashes | {"code": code_version()}


def code_version() -> str:
    """The versions of all stages, as one text."""
    return ", ".join(f"{kind} {stage.version}" for kind, stage in STAGES.items())
