from command_line import refused


def test_report_writes_a_page_of_what_fit_left(run, steering, tmp_path):
    out = tmp_path / "page.html"
    done = run("report", steering, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{out}: ")
    page = out.read_text(encoding="utf-8")
    assert "Directions of left, right" in page


def test_what_cannot_be_reported_is_refused(run, steering, tmp_path):
    refused(run("report", tmp_path / "nowhere"), "there is no folder")
    refused(run("report", tmp_path), "holds none of")
    refused(run("report", steering, "--out", tmp_path), "is a folder: name a file")
