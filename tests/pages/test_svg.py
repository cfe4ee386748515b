import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saepd.pages.svg import Measured, curves_picture, intervals_picture, points_picture, ticks

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_within(low, span):
    found = ticks(low, low + span)
    assert len(found) <= 7
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in found)
    steps = [b - a for a, b in pairwise(found)]
    assert all(s == pytest.approx(steps[0], rel=1e-3, abs=1e-9) for s in steps)


def test_ticks_of_no_range_are_its_value():
    assert ticks(2.0, 2.0) == [2.0]
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def circles(picture):
    root = ET.fromstring(picture)
    return root, [(float(c.get("cx")), float(c.get("cy")), c[0].text) for c in root.iter("circle")]


def test_intervals_are_drawn_to_scale():
    rows = [Measured("a & b", 1.0, 0.0, 2.0), Measured("c", 3.0, plain=True), Measured("d", None)]
    root, dots = circles(intervals_picture(rows, "JS <distance>"))
    assert [told for *_, told in dots] == ["a & b: 1", "c: 3"]
    ends = [line for line in root.iter("line") if line.get("stroke-width") == "2"]
    [bar] = ends
    x1, x2 = float(bar.get("x1")), float(bar.get("x2"))
    assert (x1 + x2) / 2 == pytest.approx(dots[0][0], abs=0.1)
    assert dots[1][0] - dots[0][0] == pytest.approx(x2 - x1, abs=0.2)
    colours = {c.get("fill") for c in root.iter("circle")}
    assert len(colours) == 2
    texts = [t.text for t in root.iter("text")]
    assert {"a & b", "c", "d", "JS <distance>"} <= set(texts)
    assert intervals_picture([Measured("d", None)], "x") == ""


def test_points_that_matter_are_larger():
    root, dots = circles(points_picture([(0, 0, "a", True), (1, 2, "b", False)], "x", "y"))
    sizes = {c[0].text: int(c.get("r")) for c in root.iter("circle")}
    assert sizes["a"] > sizes["b"]
    place = {told: (x, y) for x, y, told in dots}
    assert place["a"][0] < place["b"][0]
    assert place["a"][1] > place["b"][1]
    assert points_picture([(math.nan, 1, "a", True)], "x", "y") == ""


def test_curves_are_told_apart_without_colours():
    curves = {f"line {i}": ([0, 1], [0, i]) for i in range(4)}
    root = ET.fromstring(curves_picture(curves, "x", "y", diagonal=True))
    lines = list(root.iter("polyline"))
    assert len({line.get("stroke-dasharray") for line in lines}) == 4
    assert {"line 0", "line 3"} <= {t.text for t in root.iter("text")}
    assert curves_picture({"none": ([], [])}, "x", "y") == ""


@given(
    st.lists(
        st.tuples(
            NUMBERS,
            NUMBERS,
            st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_point_lies_in_its_picture(points):
    root, dots = circles(points_picture(points, "x", "y"))
    _, _, width, height = map(float, root.get("viewBox").split())
    assert len(dots) == len(points)
    assert all(0 <= x <= width and 0 <= y <= height for x, y, _ in dots)
