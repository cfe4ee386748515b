"""Results of stages on disk, by the content of all that they depend on.

Each is one safetensors file, written next to its place and renamed into it, so a reader sees a
whole file or none. A lock for each key makes two processes that want the same stage compute it
once; the system drops a lock when its process dies. Beyond a size cap, the least recently used
files go. Every file says which stage it is and what its tensors hash to: one that is gone, cut off,
altered, or of another stage or format is only a stage that is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from saepd.common.errors import InputError, first_line
from saepd.common.files import write_atomically

_log = logging.getLogger(__name__)

# Of the files; another format is not read.
_FORMAT = 1
# Of the room that is left, a process fills this share before it looks at the folder again: so many
# others may write beside it before the cap is passed.
_SHARE_OF_ROOM = 1 / 8
# What eviction leaves, so that it need not come back with the next file.
_LEFT = 0.9

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class StageResult:
    """A stage's result.

    Attributes:
        tensors: Name -> what the stage computed.
        n_forwards: Calls of the model that computing it took.
        seconds: Time that computing it took.
        reused: Whether it was there already.
    """

    tensors: Tensors
    n_forwards: int
    seconds: float
    reused: bool


class StageCache:
    """A folder of stages, which any number of processes may share.

    Args:
        folder: Where the files are; made when first written to.
        max_bytes: Above this, the least recently used files are deleted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        # Bytes that may be written before the folder is looked at.
        self._room = 0.0

    def path(self, kind: str, key: str) -> Path:
        """Where a stage's result is kept."""
        return self.folder / kind / f"{key}.safetensors"

    def has(self, kind: str, key: str) -> bool:
        """Whether it is there."""
        return self.path(kind, key).exists()

    def get(self, kind: str, key: str) -> StageResult | None:
        """A stage's result, if it is there and whole.

        Raises:
            InputError: the file is there and cannot be read or, being damaged, taken away.
        """
        path = self.path(kind, key)
        try:
            try:
                result = _read(path, kind, key)
                os.utime(path)
            except FileNotFoundError:
                return None
            except OSError:
                raise
            except Exception as error:
                # Whatever the parsers stumble over: then it is no result.
                _log.warning("%s is damaged and is computed again: %s", path, first_line(error))
                path.unlink(missing_ok=True)
                return None
        except OSError as error:
            raise InputError(
                f"cannot use the cached stage {path}: {error.strerror}: remove it, or name another "
                "folder as cache"
            ) from error
        return result

    def get_or_compute(
        self, kind: str, key: str, compute: Callable[[], tuple[Tensors, int]]
    ) -> StageResult:
        """A stage's result, computed by one process while others that want it wait.

        Args:
            kind: Name of the stage's kind.
            key: Hash of all that it depends on.
            compute: Gives the tensors, and how often it called the model.

        Raises:
            InputError: a file in the cache cannot be read.
        """
        from filelock import FileLock

        cached = self.get(kind, key)
        if cached is not None:
            return cached
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{key}.lock"):
            cached = self.get(kind, key)
            if cached is not None:
                return cached
            start = time.perf_counter()
            tensors, n_forwards = compute()
            computed = StageResult(tensors, n_forwards, time.perf_counter() - start, reused=False)
            self._put(kind, key, computed)
        return computed

    def _put(self, kind: str, key: str, computed: StageResult) -> None:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in computed.tensors.items()}
        entry = _identity(kind, key) | {
            "n_forwards": computed.n_forwards,
            "seconds": round(computed.seconds, 3),
            "sha256": _digest(tensors),
        }
        payload = save(tensors, metadata={"entry": json.dumps(entry)})
        write_atomically(self.path(kind, key), payload)
        self._room -= len(payload)
        if self._room < 0:
            self._evict(keep=self.path(kind, key))

    def _evict(self, keep: Path) -> None:
        """Delete the least recently used files if there are too many, and see how much room is."""
        from filelock import FileLock

        with FileLock(self.folder / "locks" / "eviction.lock"):
            files: list[tuple[float, int, Path]] = []
            for path in self.folder.glob("*/*.safetensors"):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                files.append((stat.st_mtime, stat.st_size, path))
            total = sum(size for _, size, _ in files)
            if total > self.max_bytes:
                for _, size, path in sorted(files):
                    if total <= _LEFT * self.max_bytes:
                        break
                    if path != keep:
                        path.unlink(missing_ok=True)
                        total -= size
        self._room = _SHARE_OF_ROOM * max(0, self.max_bytes - total)


def _read(path: Path, kind: str, key: str) -> StageResult:
    """The result in a file; raises whatever reading what is not a whole one leads to."""
    with safe_open(path, framework="pt") as file:
        entry: dict[str, Any] = json.loads((file.metadata() or {})["entry"])
        stated = {name: entry[name] for name in _identity(kind, key)}
        if stated != _identity(kind, key):
            raise ValueError(f"it says that it is {stated}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if entry["sha256"] != _digest(tensors):
        raise ValueError("its tensors are not those that were written")
    return StageResult(tensors, int(entry["n_forwards"]), float(entry["seconds"]), reused=True)


def _identity(kind: str, key: str) -> dict[str, Any]:
    """What a file must say of itself to be read as a stage's result."""
    return {"format": _FORMAT, "kind": kind, "key": key}


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
