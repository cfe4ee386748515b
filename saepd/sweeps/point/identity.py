"""What tells a point from all others: its settings, what its files hold, and the code's version."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from saepd.sweeps.point.dependencies import STAGES
from saepd.sweeps.space.parameters import PointConfig

# Of longer files, such as weights, the ends and the size stand for the whole.
_READ_WHOLE = 1 << 26
_END = 1 << 20


def point_key(config: PointConfig) -> str:
    """Equal for equal settings of equal content, whichever file or order they came in."""
    named = (config.task.data, config.where.model, config.where.sae)
    versions = {kind: stage.version for kind, stage in STAGES.items()}
    content = [_content(name) for name in named if name]
    text = json.dumps([config.flat(), content, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _content(name: str) -> str | None:
    """Hash of a local file or folder; None for what is no path, such as a hub id."""
    path = Path(name).expanduser()
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            digest.update(_sample(file))
    return digest.hexdigest()


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as opened:
        if size <= _READ_WHOLE:
            return hashlib.file_digest(opened, "sha256").digest()
        start = opened.read(_END)
        opened.seek(size - _END)
        return hashlib.sha256(start + opened.read()).digest()
