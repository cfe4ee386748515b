import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saepd.common.html import (
    NOTHING,
    Html,
    bar,
    card,
    element,
    escaped,
    facts,
    joined,
    note,
    number,
    shade,
    strip,
    table,
)

HOSTILE = '<script>alert("x")</script> & <a href="javascript:1">\' onload="y"'


class Reader(HTMLParser):
    """The elements and the text that a browser would see."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.said, self.open = [], [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said += data


@given(st.text())
def test_whatever_text_says_stays_text(text):
    page = card(
        text,
        table([text], [[text], [None]]),
        facts({text: text, "deep": {text: 1.0}}),
        strip([(text, 0.5)], most=1.0, what=text),
        note(text),
    )
    seen = Reader(page)
    allowed = {"style", "div", "h4", "table", "thead", "tbody", "tr", "th", "td", "span", "p"}
    assert set(seen.tags) <= allowed
    assert {name for name, _ in seen.attributes} <= {"class", "style", "title"}
    assert seen.open == []


def test_hostile_text_is_shown_as_it_is():
    seen = Reader(card(HOSTILE, table(["a"], [[HOSTILE]]), note(HOSTILE)))
    assert seen.said.count(HOSTILE) == 3
    assert "script" not in seen.tags
    [title] = [v for n, v in Reader(element("b", title=HOSTILE)).attributes if n == "title"]
    assert title == HOSTILE


def test_html_is_not_escaped_twice():
    inner = element("b", "x & y")
    assert inner == "<b>x &amp; y</b>"
    assert joined(inner, "<") == "<b>x &amp; y</b>&lt;"
    assert escaped(Html("<i>")) == "<i>"


def test_what_no_file_could_hold_is_left_out():
    assert escaped("a\ud83db") == "a?b"
    assert element("b", title="\udc00") == '<b title="?"></b>'


def test_facts_take_any_json():
    page = facts(
        {
            "deep": {"a": [1, 0.25, None, "<"]},
            "records": [{"x": 1.5, "y": "<i>"}, {"x": 2, "z": [{"w": True}]}],
            "empty": [],
        }
    )
    seen = Reader(page)
    assert f"1, 0.25, {NOTHING}, <" in seen.said
    assert "<i>" in seen.said
    assert "True" in seen.said
    assert seen.tags.count("table") == 4


def test_numbers_of_a_table_are_set_to_the_right():
    page = table(["name", "score", "mixed"], [["a", 0.5, 1], ["b", None, "x"]])
    assert page.count('class="n"') == 3
    assert ">0.500<" in page
    assert f">{NOTHING}<" in page


@pytest.mark.parametrize(
    ("value", "said"), [(None, NOTHING), (math.nan, NOTHING), (3, "3"), (0.12345, "0.123")]
)
def test_numbers_are_written_with_three_digits(value, said):
    assert number(value) == said


def test_bars_and_shades_are_as_large_as_their_numbers():
    assert "width:4.00em" in bar(0.5)
    assert "width:8.00em" in bar(7.0)
    assert "width:0.00em" in bar(-1.0)
    assert bar(math.nan) == NOTHING
    assert "people" in bar(0.5, people=True)
    assert shade(0.0, 1.0) is None
    assert shade(math.nan, 1.0) is None
    assert shade(1.0, 0.0) is None
    assert shade(0.5, 1.0) == "background:rgba(230,120,0,0.35)"
    assert shade(9.0, 1.0) == "background:rgba(230,120,0,0.70)"


def test_nothing_is_loaded_from_anywhere():
    page = card("t", strip([("a", 1.0)], most=1.0, what="KL"))
    for word in ("http", "src=", "url(", "@import", "<script"):
        assert word not in page
