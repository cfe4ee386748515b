"""Results of stages on disk, by the content of all that they depend on.

Each is one safetensors file, written next to its place and renamed into it, so a reader sees a
whole file or none. A lock for each key makes two processes that want the same stage compute it
once; the system drops a lock when its process dies. Beyond a size cap, the least recently used
files go. A file that is gone or damaged is only a stage that is computed again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from saepd.common.files import write_atomically

_log = logging.getLogger(__name__)

Tensors = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class StageResult:
    """A stage's result.

    Attributes:
        tensors: By name.
        n_forwards: Calls of the model that computing it took.
        seconds: What computing it took.
        reused: Whether it was there already.
    """

    tensors: Tensors
    n_forwards: int
    seconds: float
    reused: bool


class StageCache:
    """A folder of stages, which any number of processes may share.

    Args:
        folder: Made when first written to.
        max_bytes: Above this, the least recently used files are deleted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def path(self, kind: str, key: str) -> Path:
        """Where a stage's result is kept."""
        return self.folder / kind / f"{key}.safetensors"

    def has(self, kind: str, key: str) -> bool:
        """Whether it is there."""
        return self.path(kind, key).exists()

    def get(self, kind: str, key: str) -> StageResult | None:
        """A stage's result, if it is there and whole."""
        path = self.path(kind, key)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                story = json.loads((file.metadata() or {})["story"])
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError) as error:
            _log.warning("%s is damaged and is computed again: %s", path, error)
            path.unlink(missing_ok=True)
            return None
        return StageResult(tensors, story["n_forwards"], story["seconds"], reused=True)

    def get_or_compute(
        self, kind: str, key: str, compute: Callable[[], tuple[Tensors, int]]
    ) -> StageResult:
        """A stage's result, computed by one process while others that want it wait.

        Args:
            kind: Of stage.
            key: What it depends on, hashed.
            compute: Gives the tensors, and how often it called the model.
        """
        from filelock import FileLock

        found = self.get(kind, key)
        if found is not None:
            return found
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{key}.lock"):
            found = self.get(kind, key)
            if found is not None:
                return found
            start = time.perf_counter()
            tensors, n_forwards = compute()
            stored = StageResult(tensors, n_forwards, time.perf_counter() - start, reused=False)
            self._put(kind, key, stored)
        return stored

    def _put(self, kind: str, key: str, stored: StageResult) -> None:
        story = {"n_forwards": stored.n_forwards, "seconds": round(stored.seconds, 3)}
        tensors = {name: tensor.contiguous() for name, tensor in stored.tensors.items()}
        payload = save(tensors, metadata={"story": json.dumps(story)})
        write_atomically(self.path(kind, key), payload)
        self._evict(keep=self.path(kind, key))

    def _evict(self, keep: Path) -> None:
        """Delete the least recently used files until the rest fits."""
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
            for _, size, path in sorted(files):
                if total <= self.max_bytes:
                    break
                if path != keep:
                    path.unlink(missing_ok=True)
                    total -= size
