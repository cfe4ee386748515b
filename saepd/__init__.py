"""Sparse feedback in, plural answers out: steer a language model towards several perspectives."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

# The stub beside this file is the one list of public names: home, name, what it is. A name is
# loaded when first used, so that ``import saepd`` costs nothing.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_ENTRY = re.compile(r"from \.(?P<home>[\w.]+) import (?P<name>\w+) as \w+  # (?P<what>.+)")
_HOME = {entry["name"]: entry["home"] for entry in _ENTRY.finditer(_STUB)}


def _listed() -> str:
    """The public names under their headings, for ``help(saepd)``."""
    lines: list[str] = []
    for line in _STUB[_STUB.index("\n# ") :].splitlines():
        if entry := _ENTRY.match(line):
            lines.append(f"  {entry['name']:<22} {entry['what']}")
        else:
            lines.append(line.removeprefix("# "))
    return "\n".join(lines)


globals()["__all__"] = ["__version__", *sorted(_HOME)]
__doc__ = f"{__doc__}{_listed()}"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("saepd")
    if name not in _HOME:
        raise AttributeError(f"module 'saepd' has no attribute {name!r}")
    value = getattr(import_module(f"saepd.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return globals()["__all__"]
