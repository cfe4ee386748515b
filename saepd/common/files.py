"""Files: written so that a reader never sees half of one, and known by their content."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError

_MOST_BYTES = 16 * 10**6
_MARKS = (
    *((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32")),
    *((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")),
)


def write_atomically(path: Path, payload: bytes) -> None:
    """Write next to the target, then rename over it: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
        umask = os.umask(0)
        os.umask(umask)
        # mkstemp makes files private; results are as readable as any other file.
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; refuses NaN, which is not JSON."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, text.encode())


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """A small text file's content: UTF-8, with or without a byte-order mark.

    Raises:
        InputError: it cannot be read, is larger than 16 MB, or is in another encoding, which is
            named where the file tells it.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file: name a text file")
        with path.open("rb") as file:
            payload = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {getattr(error, 'strerror', error)}: name a readable file"
        ) from error
    if len(payload) > _MOST_BYTES:
        raise InputError(f"{path} is larger than {_MOST_BYTES // 10**6} MB: name a smaller file")
    # The longer marks first: that of UTF-32 begins with that of UTF-16.
    for mark, encoding in _MARKS:
        if payload.startswith(mark):
            raise InputError(f"{path} is in {encoding}: save it as UTF-8")
    if b"\0" in payload:
        raise InputError(f"{path} holds NUL bytes, as UTF-16 does: save it as UTF-8 text")
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = payload.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line} is not UTF-8 (byte 0x{payload[error.start]:02x}): save the file "
            "in that encoding"
        ) from error


# The files of a steering folder: numbers, and the story behind them.
WEIGHTS_FILE = "steering.safetensors"


CONFIG_FILE = "steering.json"
