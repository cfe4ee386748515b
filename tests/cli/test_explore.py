from pathlib import Path

from command_line import UNSCREENED, refused


def test_an_explorer_is_written(run, files, where, tmp_path):
    texts, out = tmp_path / "texts.txt", tmp_path / "explore.html"
    texts.write_text("the bus of 3 trees, and the sea.")
    index = tmp_path / "index"
    assert run("index", "--texts", texts, "--out", index, *where).code == 0
    asked = ("--feedback", files.feedback, "--index", index, "--out", out, "--top", 2)
    done = run("explore", *asked, *where, *UNSCREENED)
    assert done.code == 0, done.err
    assert f"{out}: 64 latents" in done.out
    written = out.read_text(encoding="utf-8")
    # It begins with what the table says.
    assert done.out.splitlines()[0][:40] in written


def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(run, files, tmp_path):
    sae = Path(files.sae)
    refused(run("explore", "--out", tmp_path, "--sae", sae), "is a folder")
    refused(run("explore", "--out", tmp_path / "x.html", "--sae", sae), "holds no index")
