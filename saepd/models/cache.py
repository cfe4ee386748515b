"""The user's cache: conversions of GGUF files, hashes of files, proofs.

A conversion belongs to the GGUF's content and to the versions of what converted it. Files are
hashed when they are new or have changed; hashes of others are remembered by their size and times.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from saepd.common.files import file_sha256, write_json

# Beside the files of a conversion: their hashes, and the GGUF's.
MANIFEST = "manifest.json"
_HASHES = "hashes.json"
# A file written to just now may be written to again without a visible change of its times.
_SETTLED_SECONDS = 2.0


def cache_dir() -> Path:
    """Folder for what is made once: ``$SAEPD_CACHE``, or the platform's user cache."""
    import platformdirs

    override = os.environ.get("SAEPD_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("saepd")


def converted_folder(gguf: Path, sha256: str) -> Path:
    """Where the dequantised copy of a GGUF lives in the cache.

    By the GGUF's content, and by the versions of the libraries that read it.
    """
    readers = " ".join(f"{name} {_version(name)}" for name in ("transformers", "gguf"))
    read_by = hashlib.sha256(readers.encode()).hexdigest()[:8]
    return cache_dir() / "models" / f"{gguf.stem}-{sha256[:16]}-{read_by}"


def is_intact(folder: Path, source_sha256: str, *, afresh: bool = False) -> bool:
    """Whether a folder of the cache holds the whole conversion of the GGUF with this hash.

    Args:
        folder: The conversion.
        source_sha256: Hash of the GGUF.
        afresh: Read every file, also those that have not changed since they were last read.
    """
    hashed = file_sha256 if afresh else known_sha256
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
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
        kept = {name: stored for name, stored in known.items() if Path(name).exists()}
        # A cache that cannot be written to costs time and nothing else.
        with suppress(OSError):
            write_json(store, kept | {str(path): [*now, digest]})
    return digest


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _read_hashes(store: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        return {name: entry for name, entry in known.items() if len(entry) == 4}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
