"""HTML for people who look: fragments that notebooks and pages share, with all text escaped.

Fragments take the colours of the page that they stand in, and shade with transparent ones, so that
they can be read in a light and in a dark page alike. Nothing in them is a script or is loaded.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

# One hue, told apart by how strong it is, which colour-blind people see as well.
STYLE = """
.saepd{font-size:13px;line-height:1.45;max-width:70em;overflow-x:auto}
.saepd h4{margin:.2em 0 .4em;font-size:1.05em}
.saepd table{border-collapse:collapse;font-size:inherit;margin:.3em 0 .6em}
.saepd th,.saepd td{padding:.15em .6em;text-align:left;vertical-align:top;
border-bottom:1px solid rgba(128,128,128,.3);background:none;color:inherit}
.saepd th{font-weight:600}
.saepd td.n,.saepd th.n{text-align:right;font-variant-numeric:tabular-nums}
.saepd td.n,.saepd .share{white-space:nowrap}
.saepd .bar{display:inline-block;height:.8em;background:rgba(230,120,0,.65);vertical-align:middle;
margin-right:.5em}
.saepd .people{background:rgba(60,130,220,.65)}
.saepd .strip{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2em 0 .6em}
.saepd .note{opacity:.75;margin:.2em 0}
"""
NOTHING = "\N{EN DASH}"
_BAR_WIDTH = 8.0


class Html(str):
    """Text that is HTML already; any other text is escaped before it stands in a page."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """A value as it may stand in a page: HTML as it is, anything else as text."""
    return value if isinstance(value, Html) else Html(_escape(value))


def joined(*parts: object) -> Html:
    """Parts one after the other."""
    return Html("".join(map(escaped, parts)))


def element(tag: str, *parts: object, **attributes: object) -> Html:
    """An element with escaped content; ``class_`` names its class."""
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{told}>{joined(*parts)}</{tag}>")


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point; a dash for none, and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, digits: int = 3) -> Html:
    """A table; numbers are set to the right.

    Args:
        columns: Headings.
        rows: Cells of each row: text, numbers, None, or HTML.
        digits: Digits behind the point.
    """
    numeric = [
        any(_is_number(row[i]) for row in rows)
        and all(row[i] is None or _is_number(row[i]) for row in rows)
        for i in range(len(columns))
    ]

    def cell(tag: str, value: Any, i: int) -> Html:
        text = number(value, digits) if value is None or _is_number(value) else value
        return element(tag, text, class_="n" if numeric[i] else None)

    def line(tag: str, cells: Sequence[Any]) -> Html:
        return element("tr", *(cell(tag, value, i) for i, value in enumerate(cells)))

    head = element("thead", line("th", list(columns)))
    return element("table", head, element("tbody", *(line("td", row) for row in rows)))


def facts(told: Mapping[str, Any]) -> Html:
    """Names beside values, one pair a line; JSON values of any depth."""
    rows = (
        element("tr", element("th", name), element("td", _fact(value)))
        for name, value in told.items()
    )
    return element("table", *rows)


def bar(share: float, *, people: bool = False) -> Html:
    """A share from 0 to 1 as a bar with its number."""
    if not math.isfinite(share):
        return escaped(number(None))
    width = _BAR_WIDTH * min(1.0, max(0.0, share))
    kind = "bar people" if people else "bar"
    drawn = element("span", class_=kind, style=f"width:{width:.2f}em")
    return element("span", drawn, f"{share:.2f}", class_="share")


def shade(value: float, most: float) -> str | None:
    """Style of a background that is stronger the larger a value is; None for nothing to see."""
    if not (math.isfinite(value) and most > 0) or value <= 0:
        return None
    return f"background:rgba(230,120,0,{0.7 * min(1.0, value / most):.2f})"


def strip(pieces: Sequence[tuple[str, float]], *, most: float, what: str) -> Html:
    """A text whose pieces are shaded by their numbers, which show where the mouse rests.

    Args:
        pieces: Text and number of each.
        most: The number that is shaded most.
        what: What the numbers are.
    """
    spans = (
        element("span", text, style=shade(value, most), title=f"{what} {number(value)}")
        for text, value in pieces
    )
    return element("div", *spans, class_="strip")


def note(*parts: object) -> Html:
    """A sentence in a quieter tone."""
    return element("p", *parts, class_="note")


def card(title: str, *parts: object) -> str:
    """What an object shows of itself in a notebook."""
    style = Html(f"<style>{STYLE}</style>")
    return str(joined(style, element("div", element("h4", title), *parts, class_="saepd")))


def _escape(value: object) -> str:
    # Half a surrogate pair, which no file could hold, becomes a question mark.
    return html.escape(str(value).encode("utf-8", "replace").decode())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return facts(value)
    if isinstance(value, list | tuple):
        return _listed(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return number(value) if value is None or _is_number(value) else value


def _listed(values: Sequence[Any]) -> Html:
    """A list: a table where it is one of records, else its values in a line."""
    if values and all(isinstance(value, Mapping) for value in values):
        columns = list(dict.fromkeys(str(name) for value in values for name in value))
        rows = [[value.get(c) for c in columns] for value in values]
        return table(columns, [[c if _is_number(c) else _fact(c) for c in row] for row in rows])
    return joined(*(joined(", " if i else "", _fact(value)) for i, value in enumerate(values)))
