"""Pictures that stand in a page as they are: dots with intervals, points, and curves, as SVG.

They hold no script and take the page's colour, so that they can be read in light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from saepd.common.html import Html, element

# Told apart by dashes as well, for who sees few colours.
_COLOURS = ("#d95f02", "#3c82dc", "#1b9e77", "#a8569b", "#8a8a2b", "#888888")
_DASHES = (None, "6 3", "2 2", "8 2 2 2", "1 3", "4 4")
_WIDTH, _HEIGHT, _LEFT, _BELOW, _TOP = 580, 300, 84, 44, 12
_LABEL, _ROW = 230, 22
_LONGEST_LABEL = 34


class Measured(NamedTuple):
    """A number with its interval, as one row of a picture.

    Attributes:
        label: What it is of.
        value: The number; None where it is not known.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        plain: Whether it is drawn in the quieter colour, as a null is.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    plain: bool = False


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About n round numbers that cover a range."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / n))
    step *= min((m for m in (1, 2, 5, 10) if span / (step * m) <= n), default=10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def intervals_picture(rows: Sequence[Measured], what: str) -> Html:
    """One dot with its interval a row.

    Args:
        rows: What is compared, the first on top.
        what: What the numbers are, below the axis.
    """
    known = [v for r in rows for v in (r.value, r.low, r.high) if v is not None]
    if not known:
        return Html("")
    left, width = _LABEL, _WIDTH + 160
    low, high = _widened(min(known), max(known))
    height = _TOP + _ROW * len(rows) + _BELOW

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 10)

    marks: list[Html] = []
    bottom = _TOP + _ROW * len(rows)
    for tick in ticks(low, high):
        marks += [_line(at(tick), _TOP, at(tick), bottom, faint=True)]
        marks += [_text(at(tick), bottom + 16, f"{tick:g}", "middle")]
    marks.append(_text((left + width) / 2, bottom + 36, what, "middle"))
    for i, row in enumerate(rows):
        y = _TOP + _ROW * (i + 0.5)
        colour = _COLOURS[1] if row.plain else _COLOURS[0]
        marks.append(_text(left - 8, y + 4, _cut(row.label), "end"))
        if row.low is not None and row.high is not None:
            marks.append(_line(at(row.low), y, at(row.high), y, colour=colour))
        if row.value is not None:
            marks.append(_dot(at(row.value), y, colour, f"{row.label}: {row.value:.4g}"))
    return _svg(width, height, marks, what)


def points_picture(points: Sequence[tuple[float, float, str, bool]], x: str, y: str) -> Html:
    """Points of two numbers, with those that matter drawn stronger.

    Args:
        points: Two numbers of each point, what it is, and whether it matters.
        x: What the first number is.
        y: What the second number is.
    """
    known = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not known:
        return Html("")
    frame = _Frame([p[0] for p in known], [p[1] for p in known], x, y)
    marks = frame.axes()
    for a, b, label, strong in sorted(known, key=lambda point: point[3]):
        colour = _COLOURS[0] if strong else _COLOURS[5]
        marks.append(_dot(frame.x(a), frame.y(b), colour, label, 5 if strong else 3))
    return _svg(_WIDTH, _HEIGHT, marks, f"{y} against {x}")


def curves_picture(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    diagonal: bool = False,
) -> Html:
    """Lines through points, one a name.

    Args:
        curves: Name -> both coordinates of its points.
        x: What the first coordinate is.
        y: What the second coordinate is.
        diagonal: Whether to draw the line on which both are equal.
    """
    curves = {name: line for name, line in curves.items() if len(line[0])}
    if not curves:
        return Html("")
    xs = [v for own, _ in curves.values() for v in own]
    ys = [v for _, own in curves.values() for v in own]
    both = [min(*xs, *ys), max(*xs, *ys)] if diagonal else []
    frame = _Frame([*xs, *both], [*ys, *both], x, y)
    marks = frame.axes()
    if diagonal:
        ends = [(frame.x(v), frame.y(v)) for v in both]
        marks.append(_line(*ends[0], *ends[1], faint=True))
    for i, (name, (own_x, own_y)) in enumerate(curves.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]
        line = " ".join(
            f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(own_x, own_y, strict=True)
        )
        marks.append(
            element(
                "polyline",
                points=line,
                fill="none",
                stroke=colour,
                stroke_dasharray=dash,
                stroke_width=2,
            )
        )
        if len(own_x) <= 20:
            marks += [
                _dot(frame.x(a), frame.y(b), colour, f"{name}: {a:.3g}, {b:.3g}", 3)
                for a, b in zip(own_x, own_y, strict=True)
            ]
        top = _HEIGHT + 18 * i + 8
        marks.append(
            element(
                "line",
                x1=_LEFT,
                y1=top,
                x2=_LEFT + 30,
                y2=top,
                stroke=colour,
                stroke_dasharray=dash,
                stroke_width=2,
            )
        )
        marks.append(_text(_LEFT + 38, top + 4, _cut(name), "start"))
    return _svg(_WIDTH, _HEIGHT + 18 * len(curves) + 8, marks, f"{y} against {x}")


class _Frame:
    """Where numbers are in a picture with two axes."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], x: str, y: str) -> None:
        self._x, self._y = _widened(min(xs), max(xs)), _widened(min(ys), max(ys))
        self._names = x, y

    def x(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - 10)

    def y(self, value: float) -> float:
        low, high = self._y
        return _HEIGHT - _BELOW - (value - low) / (high - low) * (_HEIGHT - _BELOW - _TOP)

    def axes(self) -> list[Html]:
        bottom = _HEIGHT - _BELOW
        marks = [_line(_LEFT, bottom, _WIDTH - 10, bottom), _line(_LEFT, _TOP, _LEFT, bottom)]
        for tick in ticks(*self._x):
            marks.append(_text(self.x(tick), bottom + 16, f"{tick:g}", "middle"))
        for tick in ticks(*self._y):
            marks.append(_line(_LEFT, self.y(tick), _WIDTH - 10, self.y(tick), faint=True))
            marks.append(_text(_LEFT - 6, self.y(tick) + 4, f"{tick:g}", "end"))
        marks.append(_text((_LEFT + _WIDTH) / 2, bottom + 36, self._names[0], "middle"))
        turned = f"rotate(-90 14 {bottom / 2:.0f})"
        marks.append(_text(14, bottom / 2, self._names[1], "middle", turned))
        return marks


def _widened(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _svg(width: float, height: float, marks: Sequence[Html], what: str) -> Html:
    return element(
        "svg",
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        role="img",
        aria_label=what,
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = "currentColor", faint: bool = False
) -> Html:
    return element(
        "line",
        x1=f"{x1:.1f}",
        y1=f"{y1:.1f}",
        x2=f"{x2:.1f}",
        y2=f"{y2:.1f}",
        stroke=colour,
        stroke_width=1 if colour == "currentColor" else 2,
        stroke_opacity=0.2 if faint else None,
    )


def _dot(x: float, y: float, colour: str, tooltip: str, radius: float = 4) -> Html:
    title = element("title", tooltip)
    return element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, fill=colour)


def _text(x: float, y: float, text: str, anchor: str, transform: str | None = None) -> Html:
    return element(
        "text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, transform=transform
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
