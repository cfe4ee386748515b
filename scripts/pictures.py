"""Take the pictures that README and docs show: the explorer and the live page, in a real browser.

    python scripts/pictures.py --out docs/pictures

Needs the extra browser and a Chromium, which --chromium names where it is not found. The live page
runs the packaged model with directions of latents that were chosen by hand.
"""

# pyright: reportMissingImports=false
# playwright is an extra that developing does not ask for.

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

import saepd
from saepd.pages.explorer import explorer
from saepd.pages.live.server import LiveServer
from saepd.pages.live.session import LiveSession

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUERY = "money and taxes"
PROMPT = "The best thing about my town is"
# Latents of the shipped SAE at block 15, found by `saepd search`, and what they are about.
CHOSEN = {"money": 3489, "music": 4, "food": 4331}
DOSE = 0.6


def taken(browser: Browser, url: str, out: Path, prepare: Callable[[Page], None]) -> None:
    """One picture of a page, once it has been prepared for it."""
    page = browser.new_page(viewport={"width": 1100, "height": 680}, color_scheme="light")
    page.goto(url)
    prepare(page)
    page.keyboard.press("Control+Home")
    page.screenshot(path=out)
    page.close()


def take_explorer(browser: Browser, out: Path) -> None:
    """A search in the explorer of the shipped SAE."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explore.html"
        file.write_bytes(explorer(saepd.load_index(sae=saepd.load_sae(15))))

        def prepare(page: Page) -> None:
            page.fill("#query", QUERY)
            page.press("#query", "Enter")
            page.wait_for_selector("text=Latents found")

        taken(browser, file.as_uri(), out, prepare)


def take_live(browser: Browser, out: Path) -> None:
    """Three directions writing side by side on the live page."""
    model = saepd.load_model()
    sae = saepd.load_sae(15, model=model)
    config = saepd.HandConfig(relative_dose=DOSE)
    directions = [
        saepd.steer(model, sae, {latent: 1.0}, config, name=name) for name, latent in CHOSEN.items()
    ]
    with LiveServer(LiveSession(model, directions, [])) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def prepare(page: Page) -> None:
            page.fill("#prompt", PROMPT)
            page.fill("#options", "its banks\nits concerts\nits food")
            page.dispatch_event("#options", "change")
            page.wait_for_selector("#bars th:has-text('its food')")
            page.fill("#tokens", "24")
            page.click("#write")
            page.locator("#text-4 span").nth(19).wait_for(timeout=120_000)

        taken(browser, server.url, out, prepare)
        server.shutdown()
        thread.join()


def main() -> int:
    """Take both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as started:
        # A container's root has no sandbox.
        browser = started.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        take_explorer(browser, options.out / "explorer.png")
        take_live(browser, options.out / "live.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
