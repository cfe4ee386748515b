"""Take the picture that README and docs begin with: the explorer of the shipped SAE, searched.

    python scripts/pictures.py --out docs/pictures

Needs the extra browser and a Chromium, which --chromium names where it is not found.
"""

# pyright: reportMissingImports=false
# playwright is an extra that developing does not ask for.

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import saepd
from saepd.pages.explorer import explorer

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUERY = "money and taxes"
SIZE = {"width": 1100, "height": 620}


def main() -> int:
    """Write explorer.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        file = Path(folder) / "explore.html"
        file.write_bytes(explorer(saepd.load_index(sae=saepd.load_sae(15))))
        # A container's root has no sandbox.
        browser = started.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(file.as_uri())
        page.fill("#query", QUERY)
        page.press("#query", "Enter")
        page.wait_for_selector("text=Latents found")
        page.screenshot(path=options.out / "explorer.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
