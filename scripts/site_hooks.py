"""What the site has besides the pages in docs/: the reference, the commands, and pictures.

mkdocs.yml names this file as its hooks. Pages of the reference are made from the list of public
names (saepd/__init__.pyi), a page for each room; how commands are used is what they say themselves.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import sys
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# The site describes the code beside it, wherever saepd is installed.
sys.path.insert(0, str(ROOT))

_ENTRY = re.compile(r"from \.(?P<home>[\w.]+) import (?P<name>\w+) as \w+  # (?P<what>.+)")
_LINK = re.compile(r"(\]\()(\.\./[^)#]+)")
_REFERENCE = "reference"


class Public(NamedTuple):
    """A public name.

    Attributes:
        heading: What it is listed under.
        home: Module that it lives in, without the package.
        name: The name.
        what: What it is, in a few words.
    """

    heading: str
    home: str
    name: str
    what: str

    @property
    def room(self) -> str:
        """Folder that it lives in."""
        return self.home.partition(".")[0]


def public_names() -> list[Public]:
    """All public names, in the order of the list."""
    names, heading = [], ""
    for line in (ROOT / "saepd" / "__init__.pyi").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            heading = line.removeprefix("# ")
        elif entry := _ENTRY.match(line):
            names.append(Public(heading, **entry.groupdict()))
    return names


@cache
def reference_pages() -> dict[str, str]:
    """Path in the site -> Markdown: the list of names, a page a room, and the commands."""
    names = public_names()
    by_room: dict[str, list[Public]] = defaultdict(list)
    by_heading: dict[str, list[Public]] = defaultdict(list)
    for one in names:
        by_room[one.room].append(one)
        by_heading[one.heading].append(one)
    lines = ["# Public names", "", "All of `import saepd`, in the order of the pipeline.", ""]
    for heading, listed in by_heading.items():
        lines += [f"## {heading}", "", "| name | what it is |", "| --- | --- |"]
        lines += [
            f"| [`saepd.{one.name}`]({one.room}.md#{_identifier(one)}) | {one.what} |"
            for one in listed
        ]
        lines.append("")
    pages = {f"{_REFERENCE}/index.md": "\n".join(lines)}
    for room, listed in sorted(by_room.items()):
        summary = (import_module(f"saepd.{room}").__doc__ or "").strip().partition("\n\n")[0]
        parts = [f"# {room}\n\n{summary}\n"]
        parts += [
            f"::: {_identifier(one)}\n    options:\n      heading: saepd.{one.name}\n"
            for one in listed
        ]
        pages[f"{_REFERENCE}/{room}.md"] = "\n".join(parts)
    return pages | {f"{_REFERENCE}/commands.md": _commands()}


def _identifier(one: Public) -> str:
    return f"saepd.{one.home}.{one.name}"


def _commands() -> str:
    from saepd.cli import COMMANDS, main

    parts = ["# Commands\n\nWhat `saepd COMMAND --help-all` says of each.\n"]
    for name, summary in COMMANDS.items():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), mock.patch.dict(os.environ, COLUMNS="88"):
            main([*name.split(), "--help-all"])
        parts.append(f"## saepd {name}\n\n{summary}\n\n```text\n{said.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference at the end of the navigation."""
    assert config.nav is not None
    first = [f"{_REFERENCE}/index.md", f"{_REFERENCE}/commands.md"]
    rooms = [path for path in reference_pages() if path not in first]
    config.nav.append({"Reference": [*first, *rooms]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, and the pictures that pages show from outside docs/."""
    for path, text in reference_pages().items():
        files.append(File.generated(config, path, content=text))
    for page in [file for file in files.documentation_pages() if file.generated_by is None]:
        for _, target in _LINK.findall(page.content_string):
            path = _from_root(page.src_uri, target)
            if path.startswith("artifacts/") and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ at the copies in the site."""

    def inside(match: re.Match[str]) -> str:
        path = _from_root(page.file.src_uri, match[2])
        if not path.startswith("artifacts/"):
            return match[0]
        return match[1] + posixpath.relpath(path, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(inside, markdown)


def _from_root(page: str, target: str) -> str:
    """A link's target as a path from the repository's root."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
