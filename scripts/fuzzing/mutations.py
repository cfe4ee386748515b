"""Make files that nobody should write, out of valid ones and out of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st

Files = dict[str, bytes]

_ODD = (
    "", " ", "\0", "\u200b", "\ufeff", "\u202e", "\u00a0", "e\u0301", "\ud83c", "\U0001f9ff" * 9,
    "../../x", "/etc/passwd", "{prompt}", "{0.__class__}", "%s%n", "'; --", "__import__('os')",
    "=cmd|' /C calc'!A0", "!!python/object/apply:os.system [id]", "nan", "NULL", "A", "base", "all",
    "x" * 5000, "|", ";", "\t", "\r", "\x85", "\u2028", "1e999", "0x10", "1_0", "NO", "2024-01-15",
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 1e308, -1e308, 5e-324, 1e999, 0.1, -0.0,
    float("nan"),
)  # fmt: skip
_BYTES = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b'"', b"\\", b"{", b"[" * 3000, b"\x80", b",")

values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(_NUMBERS) | st.sampled_from(_ODD) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_ODD) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, valid: Files) -> Files:
    """The files, one or two of them changed in one to four ways."""
    files = dict(valid)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(files)))
        change = draw(st.sampled_from([_in_bytes, _in_bytes, _in_json, _in_json, _in_text, _anew]))
        files[name] = change(draw, files[name])
    return files


def _in_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A flip, a cut, a piece more, less or twice, anywhere."""
    start = draw(st.integers(0, max(0, len(content) - 1)))
    end = min(len(content), start + draw(st.integers(0, 40)))
    piece = content[start:end]
    kind = draw(st.sampled_from(["flip", "cut", "drop", "twice", "insert", "zero", "header"]))
    if kind == "cut":
        return content[:start]
    if kind == "header":
        # Lengths and counts of binary forms stand in the first bytes.
        at = draw(st.integers(0, min(32, len(content))))
        number = draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1]))
        return content[:at] + number.to_bytes(8, "little") + content[at + 8 :]
    new = {
        "flip": bytes(byte ^ draw(st.integers(1, 255)) for byte in piece[:4]) + piece[4:],
        "drop": b"",
        "twice": piece * draw(st.integers(2, 50)),
        "insert": piece + draw(st.sampled_from(_BYTES) | st.binary(max_size=8)),
        "zero": bytes(len(piece)),
    }[kind]
    return content[:start] + new + content[end:]


def _in_text(draw: st.DrawFn, content: bytes) -> bytes:
    """Other text, another encoding or other line ends."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _in_bytes(draw, content)
    kind = draw(st.sampled_from(["line", "word", "encoding", "ends", "delimiter"]))
    if kind == "encoding":
        encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-8-sig", "cp1252", "utf-32"]))
        return text.encode(encoding, "replace")
    if kind == "ends":
        return text.replace("\n", draw(st.sampled_from(["\r", "\r\n", "\n\n", "\u2028"]))).encode()
    if kind == "delimiter":
        return text.replace(",", draw(st.sampled_from([";", "\t", "|", ",,"]))).encode()
    odd = draw(st.sampled_from(_ODD) | st.text(max_size=20)).encode("utf-8", "surrogatepass")
    if kind == "line":
        lines = content.split(b"\n")
        at = draw(st.integers(0, len(lines) - 1))
        return b"\n".join([*lines[:at], odd, *lines[at + draw(st.integers(0, 1)) :]])
    words = content.split(b" ")
    words[draw(st.integers(0, len(words) - 1))] = odd
    return b" ".join(words)


def _in_json(draw: st.DrawFn, content: bytes) -> bytes:
    """A value taken out, exchanged, nested deeply or given twice, in one JSON text of the file."""
    lines = content.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    for text, put in ((content, lambda new: new), (lines[at], _line_put(lines, at))):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return put(json.dumps(_changed(draw, value)).encode("utf-8", "surrogatepass"))
    return _in_bytes(draw, content)


def _line_put(lines: list[bytes], at: int) -> Callable[[bytes], bytes]:
    return lambda new: b"\n".join([*lines[:at], new, *lines[at + 1 :]])


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        kind = draw(st.sampled_from(["inside", "inside", "delete", "rename", "copy"]))
        if kind == "inside":
            value[key] = _changed(draw, value[key])
        elif kind == "delete":
            del value[key]
        elif isinstance(value, dict):
            name = draw(st.sampled_from(_ODD) | st.sampled_from(list(value)))
            value[name] = value.pop(key) if kind == "rename" else value[key]
        else:
            value.append(value[key])
        return value
    kind = draw(st.sampled_from(["value", "value", "text", "list", "nest"]))
    if kind == "text":
        return str(value)
    if kind == "list":
        return [value] * draw(st.integers(0, 40))
    if kind == "nest":
        for _ in range(draw(st.sampled_from([3, 90, 400]))):
            value = [value]
        return value
    return draw(values)


def _anew(draw: st.DrawFn, content: bytes) -> bytes:
    """Nothing of the old file."""
    kind = draw(st.sampled_from(["empty", "binary", "json", "lines", "deep", "pickle"]))
    if kind == "json":
        return json.dumps(draw(values)).encode("utf-8", "surrogatepass")
    if kind == "lines":
        rows = draw(st.lists(values, max_size=5))
        return "\n".join(map(json.dumps, rows)).encode("utf-8", "surrogatepass")
    # A pickle that would call print, were it ever opened as one.
    pickled = b"cbuiltins\nprint\n(S'unpickled'\ntR."
    fixed = {"empty": b"", "deep": b'{"a":' * 20_000, "pickle": pickled}
    return fixed[kind] if kind in fixed else draw(st.binary(max_size=200))
