import json
import shutil
import sys

import pytest
import torch
from tiny import SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.feedback.schema import Item
from saepd.pages.live.session import LiveSession
from saepd.pages.sliders import sliders

pytest.importorskip("anywidget")

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def directions(random_sae):
    sae = random_sae()
    return [
        Direction("left", SITE, EditLatents(sae, [3, 7, 9], [2.0, -1.0, 0.5]), coefficient=2.0),
        Direction(HOSTILE, SITE, AddVector(torch.ones(32) * 0.3)),
    ]


@pytest.fixture(scope="module")
def item():
    people = {"left": [0.25, 0.75], "elsewhere": [1.0, 0.0]}
    return Item(id="q", prompt=f"So? {HOSTILE}", options=("Yes", "<b>"), distributions=people)


@pytest.fixture
def widget(llama, directions, item):
    return sliders(llama, directions, item)


def asked(widget, item):
    return {
        "prompt": item.prompt,
        "options": list(item.options),
        "strengths": widget.strengths,
        "operator": widget.operator,
        "alpha": widget.alpha,
    }


def test_moving_a_slider_gives_the_live_pages_bars_and_runs_no_prefix(
    widget, llama, directions, item
):
    page = LiveSession(llama, directions, [item])
    seen = []
    for strengths in ({}, {"left": 3.0}, {HOSTILE: -0.5}):
        widget.strengths = {**widget.strengths, **strengths}
        assert widget.bars == page.options(asked(widget, item))
        assert widget.said == ""
        seen.append(widget.bars["branches"]["left"])
    assert seen[0] != seen[1] == seen[2]
    widget.operator, widget.alpha = "cad", 2.0
    assert widget.bars == page.options(asked(widget, item))
    assert widget._session.n_captured == 1
    assert [d.coefficient for d in widget.directions] == [6.0, -0.5]
    frame = widget.frame()
    assert frame[frame.branch == "merged"].probability.tolist() == widget.bars["merged"]
    json.dumps(widget.fixed | widget.bars, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("strengths", {"left": 1.0}, "strengths must name each of"),
        ("strengths", {"left": "x", HOSTILE: 1.0}, "the strength of 'left'"),
        ("strengths", {"left": 1e9, HOSTILE: 1.0}, "the strength of 'left'"),
        ("operator", "mixtur", "mixture"),
        ("alpha", float("nan"), "alpha"),
    ],
)
def test_what_cannot_be_is_said_and_the_bars_stay(widget, name, value, sentence):
    before, fine = widget.bars, getattr(widget, name)
    setattr(widget, name, value)
    assert sentence in widget.said
    assert widget.bars == before
    setattr(widget, name, fine)
    assert widget.said == ""


def test_what_has_no_bars_is_refused(llama, directions, item, monkeypatch):
    with pytest.raises(InputError, match="no direction to move"):
        sliders(llama, [], item)
    with pytest.raises(InputError, match="a question with options"):
        sliders(llama, directions, Item(id="q", prompt="So?", options=()))
    assert sliders(llama, directions[0], item).fixed["names"] == ["left"]
    monkeypatch.delitem(sys.modules, "saepd.pages.slider_widget")
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(InputError, match=r"pip install 'saepd\[notebooks\]'"):
        sliders(llama, directions, item)


def test_the_script_loads_nothing_and_sets_text_only(widget):
    assert "export default" in widget._esm
    for word in ("http", "import ", "innerHTML", "outerHTML", "insertAdjacent", "eval("):
        assert word not in widget._esm
    assert "url(" not in widget._css


# What a notebook gives the widget: traits, and word of their changes.
HARNESS = """\
async (given) => {
  const handlers = {}, state = given.state;
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => { window.saved = structuredClone(state); },
    on: (event, handler) => { (handlers[event] ||= []).push(handler); },
    off: () => {},
  };
  window.change = (name, value) => {
    state[name] = value;
    for (const handler of handlers["change:" + name] || []) handler();
  };
  const url = URL.createObjectURL(new Blob([given.script], {type: "text/javascript"}));
  const widget = (await import(url)).default;
  const style = document.createElement("style");
  style.textContent = given.style;
  document.head.append(style);
  widget.render({model, el: document.body});
}
"""


def test_the_sliders_move_in_a_browser(widget):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    chromium = next(found, None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    faults = []
    with api.sync_playwright() as started:
        # A container's root has no sandbox.
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        names = ("strengths", "operator", "alpha", "bars", "said", "fixed")
        state = {name: getattr(widget, name) for name in names}
        given = {"state": state, "script": widget._esm, "style": widget._css}
        page.evaluate(HARNESS, given)
        assert page.locator("img").count() == 0
        rows = page.locator("tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows[1:]] == [
            "base", "left", "left, people", HOSTILE, "merged",
        ]  # fmt: skip
        page.locator("input[type=range]").first.fill("2.5")
        page.wait_for_function("window.saved && window.saved.strengths.left === 2.5")
        # Python's answer to what was moved, as the notebook would bring it.
        widget.strengths = page.evaluate("window.saved.strengths")
        page.evaluate("bars => window.change('bars', bars)", widget.bars)
        shown = page.locator("tr").nth(2).locator("td").all_inner_texts()
        assert shown == [f"{share:.2f}" for share in widget.bars["branches"]["left"]]
        page.select_option("select", "mixture")
        assert page.evaluate("window.saved.operator") == "mixture"
        page.evaluate("said => window.change('said', said)", HOSTILE)
        assert page.locator("[role=alert]").inner_text() == HOSTILE
        browser.close()
    assert faults == []
