"""Read a small GGUF file from anywhere: strict, bounded, and without building what it claims.

`gguf.GGUFReader` makes a Python object of every element of every array that a file names, so that
a few megabytes fill the memory. Control vectors are small and simple; this reads only those.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from saepd.common.errors import InputError
from saepd.interchange.reading import read_bounded

_MOST_ENTRIES = 4096
_MOST_DIMENSIONS = 4
# Value types of the format: struct's letters.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9
_FLOAT32 = 0


class _Cursor:
    """A place in the file's bytes that never passes their end."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.at = payload, 0

    def take(self, n: int) -> bytes:
        if n > len(self.payload) - self.at:
            raise ValueError("it ends in the middle of something")
        self.at += n
        return self.payload[self.at - n : self.at]

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()


def read_small_gguf(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scalar and text fields, and float32 tensors, of a GGUF of version 2 or 3.

    Raises:
        InputError: it cannot be read, is damaged or too large, or holds other tensors than float32.
    """
    payload = read_bounded(path)
    try:
        return _read(_Cursor(payload))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} is no GGUF of vectors: {error}") from error


def _read(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    if (version := cursor.number("I")) not in (2, 3):
        raise ValueError(f"it is of version {version}, and 2 and 3 are read")
    n_tensors, n_fields = cursor.number("Q"), cursor.number("Q")
    if max(n_tensors, n_fields) > _MOST_ENTRIES:
        raise ValueError(f"it has more than {_MOST_ENTRIES} entries")
    fields = {}
    for _ in range(n_fields):
        name, kind = cursor.text(), cursor.number("I")
        fields[name] = _value(cursor, kind)
    places = {}
    for _ in range(n_tensors):
        name = cursor.text()
        n_dimensions = cursor.number("I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {n_dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(n_dimensions))
        kind, offset = cursor.number("I"), cursor.number("Q")
        if kind != _FLOAT32:
            raise ValueError("a tensor is not of float32")
        if name in places:
            raise ValueError(f"the tensor {name[:60]!r} is there twice")
        places[name] = (shape, offset)
    align = fields.get("general.alignment", 32)
    if not isinstance(align, int) or not 0 < align <= 4096:
        raise ValueError("its alignment is no small number")
    start = -(-cursor.at // align) * align
    return fields, {name: _tensor(cursor.payload, start, *at) for name, at in places.items()}


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise ValueError(f"a field is of the unknown type {kind}")
    inner, n = cursor.number("I"), cursor.number("Q")
    if inner in _SCALARS:
        cursor.take(n * struct.calcsize(f"<{_SCALARS[inner]}"))
    elif inner == _STRING and n <= _MOST_ENTRIES:
        for _ in range(n):
            cursor.take(cursor.number("Q"))
    else:
        raise ValueError("it has an array that no control vector has")
    # No control vector says anything in an array.
    return None


def _tensor(payload: bytes, start: int, shape: tuple[int, ...], offset: int) -> np.ndarray:
    n = 1
    for size in shape:
        n *= size
    begin = start + offset
    if begin + 4 * n > len(payload):
        raise ValueError("a tensor reaches beyond its end")
    # Sizes stand in the file from the innermost on.
    return np.frombuffer(payload, "<f4", n, begin).reshape(shape[::-1]).astype(np.float32)
