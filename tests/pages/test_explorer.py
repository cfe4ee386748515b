import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest

from saepd.pages.explorer import explorer


@pytest.fixture(scope="module")
def written(index, table):
    return explorer(index, table).decode()


def held(written):
    [found] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', written)
    return json.loads(found)


def test_numbers_are_those_of_the_index_and_of_the_table(index, table, written):
    data = held(written)
    assert data["table"] == json.loads(json.dumps(table.to_dict()))
    for latent in range(index.d_sae):
        page, told = index.page(latent), data["latents"][latent]
        if not page.n_firings:
            assert told is None
            continue
        assert told["n"] == page.n_firings
        assert [t[0] for t in told["terms"]] == [t.word for t in page.terms]
        for (_, peak, ids, fired), context in zip(told["contexts"], page.contexts, strict=True):
            assert [data["pieces"][i] for i in ids] == context.tokens
            assert dict(fired)[peak] == pytest.approx(context.activation, rel=1e-3)


def test_only_its_own_script_may_run_and_nothing_is_fetched(written, hostile):
    scripts = re.findall(r"<script>(.*?)</script>", written, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in written
    assert "default-src 'none'" in written
    assert "innerHTML" not in scripts[0]
    assert hostile not in written
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", written)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("at", ["", "#latent/{}", "#search/trees", "#latent/999", "#search/🚌"])
def test_a_browser_shows_text_as_text(table, written, tmp_path, at):
    path = tmp_path / "explore.html"
    path.write_text(written, encoding="utf-8")
    latent = table.rows[0].latent
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000"]
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", f"file://{path}{at.format(latent)}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    shown = done.stdout.partition('<main id="main"')[2].partition("</main>")[0]
    assert "<img" not in shown
    assert "<script" not in shown
    expected = {
        "": "tells",
        "#latent/{}": f"Latent {latent}",
        "#search/trees": "Latents found",
        "#latent/999": "There is no latent 999",
        "#search/🚌": "No latent has these words",
    }
    assert expected[at] in shown


def test_without_feedback_it_is_of_the_index_alone(index):
    data = held(explorer(index).decode())
    assert data["table"] is None
    assert len(data["latents"]) == index.d_sae
