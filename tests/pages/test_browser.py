"""The pages in a real browser: what is typed, moved and clicked, and that nothing else happens."""

import re
import shutil
import threading

import pytest
import torch
from reported import write_evaluation, write_fit, write_sweep, write_triage
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.feedback.schema import Item
from saepd.pages.explorer import explorer
from saepd.pages.live.server import LiveServer
from saepd.pages.live.session import LiveSession
from saepd.pages.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = "<img src=x onerror=alert(1)>"
SIZES = [(1200, "light"), (1200, "dark"), (420, "light"), (420, "dark")]


@pytest.fixture(scope="module")
def browser():
    playwright.expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as started:
        # A container's root has no sandbox.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open a page; afterwards nothing may have been complained about or asked of elsewhere."""
    faults = []

    def opened(url, width=1200, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        root = url.rpartition("/")[0]
        page.on("request", lambda r: None if r.url.startswith(root) else faults.append(r.url))
        page.goto(url)
        return page

    yield opened
    assert faults == []


@pytest.fixture
def live(llama, random_sae):
    """A live page's address, and the SAE of its directions."""
    sae = random_sae()
    directions = [
        Direction("left", SITE, EditLatents(sae, [3, 7, 9], [6.0, -4.0, 5.0])),
        Direction("right", SITE, EditLatents(sae, [11, 12], [5.0, 5.0])),
    ]
    people = {"left": [0.25, 0.75]}
    items = [Item(id="q", prompt="A known one?", options=("Yes", "No"), distributions=people)]
    with LiveServer(LiveSession(llama, directions, items)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url, sae
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def explored(index, table, tmp_path_factory):
    """The explorer's file."""
    file = tmp_path_factory.mktemp("explored") / "explore.html"
    file.write_bytes(explorer(index, table))
    return file.as_uri()


def test_the_explorer_is_searched_and_followed_by_keyboard(opened, explored, table):
    page = opened(explored)
    assert page.inner_text(".lead") == table.sentence
    page.keyboard.press("Tab")
    page.focus("#query")
    page.keyboard.type("trees")
    page.keyboard.press("Enter")
    page.wait_for_selector("h2:has-text('Latents found')")
    first = page.locator("main a").first
    latent = first.inner_text()
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"h2:has-text('Latent {latent}:')")
    alike = page.locator("h3:has-text('Writes like') + table a").first
    other = alike.inner_text()
    assert other != latent
    alike.click()
    page.wait_for_selector(f"h2:has-text('Latent {other}:')")
    page.go_back()
    page.wait_for_selector(f"h2:has-text('Latent {latent}:')")
    page.click("text=Feedback")
    page.wait_for_selector(".lead")
    assert page.locator("main tbody tr").count() > len(table.rows)


def test_what_is_typed_into_the_explorer_stays_text(opened, explored, hostile):
    page = opened(explored)
    for typed, shown in (
        (hostile, "Latents found"),
        ("javascript:alert(1)", "Latents found"),
        ("<script>", "Latents found"),
        ("999", "There is no latent 999"),
        ("zebra " * 2000, "No latent has these words"),
        ("🦓", "No latent has these words"),
        ("שלום", "Latents found"),
        ("%E0%A4%Q", "No latent has these words"),
        ("", "tells"),
    ):
        page.fill("#query", typed)
        page.press("#query", "Enter")
        playwright.expect(page.locator("main"), typed[:40]).to_contain_text(shown)
        assert page.locator("img, main script").count() == 0
    assert page.evaluate("window.ran") is None


def test_the_live_page_is_typed_in_moved_and_clicked(opened, live, llama, tmp_path):
    url, sae = live
    page = opened(url)
    page.wait_for_selector("#bars table")
    page.select_option("#items", index=1)
    page.wait_for_selector("#bars .people")
    assert page.input_value("#prompt") == "A known one?"
    assert "left, people" in page.inner_text("#bars")
    before = page.inner_text("#bars")
    page.locator("#strength0").evaluate("e => { e.value = 8; e.dispatchEvent(new Event('input')) }")
    playwright.expect(page.locator("#bars")).not_to_have_text(before, use_inner_text=True)
    page.fill("#tokens", "12")
    page.click("#write")
    page.locator("#text-3 span").nth(5).wait_for()
    page.locator("#text-3 span").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#token table")
    assert "in the merge, disagreement" in page.inner_text("#token")
    for token in page.locator("#text-3 span").all():
        # At the first token that a branch moved, its latents are named, and each has a page.
        token.click()
        if "most moved by" in page.inner_text("#token"):
            page.locator("#token button").first.click()
            page.wait_for_selector("#latent h2")
            break
    assert page.inner_text("#latent h2").startswith("Latent ")
    page.click("#code")
    page.wait_for_selector("#python:not([hidden])")
    assert "'left': 8" in page.inner_text("#python")
    page.fill("#folder", str(tmp_path / "kept"))
    page.click("#save")
    page.wait_for_selector("text=saved in")
    left, right = load_from_disk(tmp_path / "kept", llama, sae)
    assert (left.coefficient, right.coefficient) == (8, 1)
    page.click("#save")
    page.wait_for_selector("#error:has-text('is there already')")


def test_text_stays_text_and_what_is_wrong_is_a_sentence(opened, live):
    url, _ = live
    page = opened(url)
    page.wait_for_selector("#bars table")
    page.fill("#prompt", HOSTILE)
    page.fill("#options", f"{HOSTILE}\njavascript:alert(2)")
    page.dispatch_event("#options", "change")
    page.wait_for_selector("#bars th:has-text('onerror')")
    assert page.locator("#bars img").count() == 0
    for prompt, options, said in (
        ("", "a\nb", "the prompt is empty"),
        ("So?", "a", "one option is no choice"),
        ("x" * 10_000, "a\nb", "shorten it"),
    ):
        page.fill("#prompt", prompt)
        page.fill("#options", options)
        page.dispatch_event("#options", "change")
        page.wait_for_selector(f"#error:has-text('{said}')")
    page.fill("#prompt", "האם האוטובוסים חינם? 🚌")
    page.fill("#options", "כן\nלא")
    page.dispatch_event("#options", "change")
    page.wait_for_selector("#bars th:has-text('כן')")
    assert page.inner_text("#error") == ""


@pytest.mark.parametrize("kind", ["fit", "evaluation", "sweep", "triage"])
def test_a_report_is_gone_through_and_its_texts_stay_texts(
    opened, kind, hostile, llama, random_sae, tmp_path
):
    write = {
        "fit": lambda: write_fit(tmp_path, llama, random_sae(), hostile),
        "evaluation": lambda: write_evaluation(tmp_path, hostile, left=hostile),
        "sweep": lambda: write_sweep(tmp_path, hostile),
        "triage": lambda: write_triage(tmp_path, hostile, left=hostile),
    }
    write[kind]()
    page = opened(write_report(tmp_path).as_uri())
    links, headings = page.locator("nav a"), page.locator("section > h2")
    assert links.all_inner_texts() == headings.all_inner_texts()
    assert links.count() > 1
    for i in range(links.count()):
        page.evaluate("scrollTo(0, 0)")
        links.nth(i).focus()
        page.keyboard.press("Enter")
        playwright.expect(page).to_have_url(re.compile(f"#part{i + 1}$"))
        playwright.expect(headings.nth(i)).to_be_in_viewport()
    said = " ".join(page.locator("body").text_content().split())
    assert hostile in said
    assert page.locator("img, script, iframe, a:not([href^='#part'])").count() == 0
    assert page.evaluate("window.ran") is None


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_pages_fit_their_window_in_light_and_dark(
    opened, live, explored, llama, tmp_path, width, scheme
):
    direction = Direction(HOSTILE, SITE, AddVector(torch.ones(D_MODEL)))
    save_to_disk(direction, tmp_path, llama, {"sentence": f"It helps. {HOSTILE}"})
    report = write_report(tmp_path)
    for url in (live[0], explored, report.as_uri()):
        page = opened(url, width, scheme)
        page.wait_for_selector("table")
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades = [int(v) for v in ground[4:-1].split(",")]
        assert (max(shades) < 64) == (scheme == "dark")
    assert page.locator("img").count() == 0
    assert page.inner_text(".lead") == f"It helps. {HOSTILE}"
