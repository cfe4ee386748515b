"""What the files that a point names hold, so that a file that is corrected in place is another."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from saepd.common.files import file_sha256

# Of longer files, such as weights, pieces that lie evenly and the size stand for the whole.
_READ_WHOLE = 1 << 26
_N_PIECES = 64
_PIECE = 1 << 18

# Of each file: its path below the folder, its size, and when it was last written.
Stamp = tuple[tuple[str, int, int], ...]


def stamp_of(name: str | None) -> Stamp | None:
    """What changes when a local file or folder does; None for what is no path, such as a hub id."""
    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        if not path.exists():
            return None
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(file, file.stat()) for file in files if file.is_file()]
    except (OSError, ValueError):
        # No name that a file could have, or a file that went away while it was looked at.
        return None
    return tuple((str(f.relative_to(path)), stat.st_size, stat.st_mtime_ns) for f, stat in stats)


def content_of(name: str | None) -> str | None:
    """Hash of a local file or folder as it is now; None for what is no path."""
    stamp = stamp_of(name)
    return None if name is None or stamp is None else _hash(name, stamp)


@lru_cache(maxsize=64)
def _hash(name: str, stamp: Stamp) -> str:
    path = Path(name).expanduser()
    digest = hashlib.sha256()
    for file, size, _ in stamp:
        digest.update(f"{file}\0{size}\0{_sample(path / file, size)}".encode())
    return digest.hexdigest()


def _sample(file: Path, size: int) -> str:
    if size <= _READ_WHOLE:
        return file_sha256(file)
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for piece in range(_N_PIECES):
            opened.seek(piece * (size - _PIECE) // (_N_PIECES - 1))
            digest.update(opened.read(_PIECE))
    return digest.hexdigest()
