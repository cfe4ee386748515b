"""Files of vectors from elsewhere: read within bounds, so that none fills the memory."""

from __future__ import annotations

from pathlib import Path

from saepd.common.errors import InputError

# The largest models have about 16,000 numbers in each of 130 blocks: 9 MB.
_MOST_BYTES = 64 * 10**6


def read_bounded(path: Path) -> bytes:
    """A file's content, if it is a file and no larger than vectors are.

    Raises:
        InputError: it cannot be read, is no file, or is larger than 64 MB.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file: name a file of vectors")
    try:
        with path.open("rb") as file:
            payload = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {getattr(error, 'strerror', error)}: name a readable file"
        ) from error
    if len(payload) > _MOST_BYTES:
        raise InputError(
            f"{path} is larger than {_MOST_BYTES // 10**6} MB, which no file of vectors is: name "
            "another"
        )
    return payload
