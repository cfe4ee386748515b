"""What must not happen while a reader reads, watched by Python's own audit events."""

from __future__ import annotations

import collections
import dataclasses
import os
import signal
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STARTED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_CHANGED = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_MAKERS = [Path(str(module.__file__)) for module in (dataclasses, collections, typing)]


class TooSlowError(Exception):
    """A case took more processor time than it may."""


class Guard:
    """Notes each write outside a folder, unpickling, code run from data and program started.

    An audit hook cannot be taken away again, so one guard serves a whole process.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._folder: Path | None = None
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGPROF, self._too_slow)

    @contextmanager
    def watching(self, folder: Path, seconds: float) -> Iterator[None]:
        """Watch what happens inside the block.

        Args:
            folder: Where writing is allowed.
            seconds: Of processor time, after which `TooSlowError` is raised in the block.
        """
        self.violations.clear()
        self._folder = folder.resolve()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._folder = None

    @staticmethod
    def _too_slow(signum: int, frame: Any) -> None:
        raise TooSlowError

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(mode, str) and any(c in mode for c in "wax+")
            if (writes or (flags or 0) & _WRITING) and not self._may_write(path):
                self.violations.append(f"wrote {path}")
        elif event in _CHANGED:
            if not self._may_write(arguments[0]):
                self.violations.append(f"{event} {arguments[0]}")
        elif event == "pickle.find_class":
            self.violations.append(f"unpickled {'.'.join(map(str, arguments))}")
        elif event in _STARTED:
            self.violations.append(f"{event} {arguments[0]}")
        elif event == "exec" and _is_from_text(arguments[0]):
            self.violations.append("ran code from a text")

    def _may_write(self, path: object) -> bool:
        if isinstance(path, int):
            return True
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        real = Path(os.path.realpath(os.fsdecode(path)))
        assert self._folder is not None
        # Python itself keeps compiled modules beside their sources.
        of_python = "__pycache__" in real.parts or real == Path(os.devnull)
        return of_python or real.is_relative_to(self._folder)


def _is_from_text(code: Any) -> bool:
    """Whether code was made of a text, but by what makes classes and reads annotations so."""
    if not getattr(code, "co_filename", "").startswith("<string>"):
        return False
    caller = sys._getframe(2).f_code.co_filename
    return Path(caller) not in _MAKERS
