"""One page that holds all it shows: no script, nothing loaded, light or dark as its reader is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from saepd.common.html import STYLE, Html, element, joined

# The browser itself is told that nothing may run or be fetched, whatever text says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark}
body{font-family:system-ui,sans-serif;line-height:1.5;margin:0 auto;padding:1em;max-width:64em;
background:Canvas;color:CanvasText}
h1{font-size:1.5em;margin:.3em 0}h2{font-size:1.15em;margin:1.6em 0 .4em}
h3{font-size:1em;margin:1.2em 0 .3em}
nav a{margin-right:1em}a{color:LinkText}
section{overflow-x:auto}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.lead{font-size:1.1em}
svg{max-width:100%;height:auto;display:block}
svg text{fill:currentColor;font-size:12px}
"""


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: Its heading.
        body: What stands below it, as HTML.
    """

    title: str
    body: Html


def page(title: str, lead: str, sections: Sequence[Section]) -> bytes:
    """A whole page.

    Args:
        title: Its heading, and what a browser's tab says.
        lead: The sentence that says what was found.
        sections: Its parts; each can be reached from the top.
    """
    links = (element("a", part.title, href=f"#part{i}") for i, part in enumerate(sections, 1))
    parts = (
        element("section", element("h2", part.title, id=f"part{i}"), part.body, class_="saepd")
        for i, part in enumerate(sections, 1)
    )
    head = joined(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width,initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("title", title),
        Html(f"<style>{STYLE}{_STYLE}</style>"),
    )
    body = joined(
        element("h1", title), element("p", lead, class_="lead"), element("nav", *links), *parts
    )
    html = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    return html.encode()
