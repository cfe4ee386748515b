"""Values that stand in a file as text: JSON, and what Python prints for lists and dicts."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from itertools import pairwise
from typing import Any

_DEFAULTDICT = re.compile(r"defaultdict\(<class '\w+'>,\s*(\{.*\})\)", re.DOTALL)
# Names that printed Python, numpy or JSON leaves in a list of numbers.
_NAMES = {"nan": float("nan"), "NaN": float("nan"), "inf": float("inf"), "null": None}


def json_value(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, nested too deeply, or an object has a key twice; the message
            says what would be right.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    except _KeyTwiceError:
        raise
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): write JSON") from None


def literal_value(text: str) -> Any:
    """The value that a JSON text or a printed Python literal stands for.

    The text is never evaluated: only literals are read, and the frame of a ``defaultdict``.

    Raises:
        ValueError: it is neither, or two texts stand side by side without a comma (as numpy prints
            them), which Python would join into one.
    """
    text = text.strip()
    framed = _DEFAULTDICT.fullmatch(text)
    text = framed[1] if framed else text
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _KeyTwiceError:
        raise
    except (ValueError, RecursionError):
        pass
    try:
        tree = _WithoutNames().visit(ast.parse(text, mode="eval"))
        value = ast.literal_eval(tree)
        sides = _has_adjacent_texts(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a printed list or dict") from error
    if sides:
        raise ValueError("texts stand side by side without a comma between them")
    return value


class _KeyTwiceError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _KeyTwiceError(f"the key {twice[:60]!r} is there twice in one object: write it once")
    return value


class _WithoutNames(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_NAMES[node.id]) if node.id in _NAMES else node

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        if len(set(keys)) < len(keys):
            raise _KeyTwiceError("a key is there twice in one dict: write it once")
        return self.generic_visit(node)  # pyright: ignore[reportReturnType]


def _has_adjacent_texts(text: str) -> bool:
    kinds = [
        token.type
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (tokenize.NL, tokenize.NEWLINE)
    ]
    return any(a == b == tokenize.STRING for a, b in pairwise(kinds))
