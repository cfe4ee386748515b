"""The site of the documentation builds without a warning, is whole, and asks nothing of others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT

import saepd
from saepd.cli import COMMANDS

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder. mkdocs.yml is strict: a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    # Were it quiet, warnings would not be counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_a_warning_ends_the_build(tmp_path):
    assert re.search(r"^strict: true$", (ROOT / "mkdocs.yml").read_text(), re.M)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: broken\nstrict: true\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr


def test_every_public_name_and_command_has_its_entry(site):
    pages = {path.parent.name: path.read_text() for path in site.glob("reference/*/index.html")}
    everything = "".join(pages.values())
    for name in saepd.__all__:
        if name != "__version__":
            home = getattr(saepd, name).__module__
            assert f'id="{home}.{name}"' in everything, name
    for name in COMMANDS:
        assert f"usage: saepd {name}" in pages["commands"]


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", text)
        loaded += re.findall(r"<link[^>]*\shref=[\"']?([^\"'\s>]+)", text)
        assert not [url for url in loaded if re.match(r"(?:https?:)?//", url)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()), sheet


def test_pictures_from_outside_the_pages_are_in_the_site(site):
    sweeps = (site / "sweeps" / "index.html").read_text()
    [picture] = re.findall(r'src="([^"]*heat_maps\.png)"', sweeps)
    assert (site / "sweeps" / picture).resolve().is_file()
