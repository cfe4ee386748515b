import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from reported import evaluation_row, write_evaluation, write_fit, write_sweep, write_triage
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.saving import save_to_disk
from saepd.evaluation.results.result import read_evaluation
from saepd.fit.verdict import Cost, Verdict
from saepd.metrics.intervals import Interval
from saepd.pages.page import Section, page
from saepd.pages.report import report, write_report

HOSTILE = "<script>alert(1)</script>\" onload='x' javascript:alert(2)"


class Reader(HTMLParser):
    """Every element, link and word that a browser would see; a page that loads nothing."""

    def __init__(self, written):
        super().__init__()
        self.tags, self.said, self.open, self.links = [], [], [], []
        self.feed(written.decode())
        self.close()
        assert self.open == []
        assert not {"script", "link", "img", "iframe", "object"} & set(self.tags)
        assert all(link.startswith("#part") for link in self.links)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.links.append(value)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.said.append(data)


def test_a_direction_of_several_sites_is_reported_at_each(random_sae, tmp_path):
    sites = (SITE, "blocks.2.hook_resid_post")
    parts = [
        Direction("d", site, EditLatents(random_sae(hook_name=site, seed=i), [7 + i], [1.0]))
        for i, site in enumerate(sites)
    ]
    save_to_disk(replace(parts[0], also=(parts[1],)), tmp_path)
    said = words(tmp_path)
    assert all(f"d, {site}" in said for site in sites)
    assert {"7", "8"} <= set(said)
    assert "One direction of 2 latents" in " ".join(said)


def words(folder, **settings):
    """All that the report of a folder says, one string for each element."""
    return Reader(report(folder, **settings)).said


def test_a_page_can_be_gone_through_and_forbids_scripts():
    written = page(HOSTILE, "lead", [Section("One", "a"), Section("Two & more", "b")])
    seen = Reader(written)
    assert seen.links == ["#part1", "#part2"]
    assert seen.said.count(HOSTILE) == 2
    assert b"default-src 'none'" in written
    assert b"color-scheme:light dark" in written


# --- a fit ---


@pytest.fixture
def steering(tmp_path, llama, random_sae):
    return write_fit(tmp_path, llama, random_sae(), HOSTILE)


def test_the_report_of_a_fit_tells_verdict_directions_and_latents(steering):
    said = words(steering)
    assert f"Worth it. {HOSTILE}" in said
    assert {"0.250", SITE, "2 latents", f"a vector of norm {D_MODEL**0.5:.3g}"} <= set(said)
    # Largest first, and one of three latents is in both.
    assert said.index("-4.000") < said.index("1.000", said.index("-4.000"))
    assert "0.333" in said
    assert any("features.json" in text for text in said)


def test_what_learning_gained_is_drawn_beside_what_chance_gains(tmp_path, llama):
    gain = Interval(0.05, 0.01, 0.09)
    cost = Cost(0.2, 0.03, 1.1, 0.25, 0.125)
    verdict = Verdict(
        supported=True,
        steers=True,
        unsteered=1.2,
        gain=gain,
        by_perspective={"d": Interval(0.07, 0.0, 0.14), "e": None},
        controls={"as many random latents": Interval(0.015, -0.02, 0.05)},
        n_answers={"d": 50},
        n_controlled=50,
        n_latents=8,
        costs={"d": cost},
        settings={"ridge": 0.5},
    )
    direction = Direction("d", SITE, AddVector(torch.ones(D_MODEL)))
    save_to_disk(direction, tmp_path, llama, verdict.as_json())
    said = words(tmp_path)
    assert said.count(str(verdict)) == 1
    assert "Latents" not in said
    assert {"0.0500", "0.0150", "-0.0200", "as many random latents", "0.5", "0.125"} <= set(said)
    picture = report(tmp_path).decode()
    assert picture.count("<circle") == 3
    # What shows itself in a notebook holds the same.
    seen = Reader(verdict._repr_html_().encode()).said
    assert {str(verdict), "0.0500", "as many random latents", "1.100"} <= set(seen)
    assert verdict.frame().gain.tolist()[:2] == [0.05, 0.07]


def test_contexts_are_told_where_they_are_known(steering):
    row = {
        "perspective": "b",
        "latent": 7,
        "tokens": [" tax", "<b>"],
        "score": 1.5,
        "stability": None,
        "contexts": [{"text": HOSTILE, "activation": 2.5, "perspectives": ["b"]}],
    }
    (steering / "features.json").write_text(json.dumps({"features": [row]}))
    said = words(steering)
    assert f"2.50 {HOSTILE}" in said
    assert "' tax' '<b>'" in said
    (steering / "features.json").write_text("[]")
    with pytest.raises(InputError, match="is not what saepd features --out writes"):
        report(steering)


def test_a_fit_without_a_verdict_says_so(tmp_path, llama):
    save_to_disk(Direction("d", SITE, AddVector(torch.ones(D_MODEL))), tmp_path, llama)
    assert any("Nothing in the folder says how much" in text for text in words(tmp_path))


# --- an evaluation ---


@pytest.fixture
def evaluation(tmp_path):
    return write_evaluation(tmp_path, HOSTILE)


def test_the_report_of_an_evaluation_tells_numbers_pictures_and_questions(evaluation):
    said = words(evaluation)
    assert read_evaluation(evaluation).finding() in said
    assert {"what we do", "9.9", "left, right", "left out: too short"} <= set(said)
    questions = [text for text in said if text.startswith("Question ")]
    assert all(text.endswith(HOSTILE) for text in questions)
    assert len(questions) == 5
    # People's shares come first, then those of both methods; from the best question to the worst.
    assert questions[0].startswith(("Question 0", "Question 1"))
    assert questions[-1].startswith("Question 5")
    assert said.count("people (left)") + said.count("people (right)") == 5
    page_ = report(evaluation).decode()
    assert page_.count("<svg") == 3


def test_the_report_of_an_evaluation_tells_the_populations_rows_where_there_are_any(evaluation):
    assert "One answer for the whole population" not in words(evaluation)
    summary = json.loads((evaluation / "summary.json").read_text())
    summary["methods"]["merge"] = "one answer"
    rows = (("merge", False, 0.25), ("base", True, 0.3))
    summary["population"] = [evaluation_row(id_, null, "all", value) for id_, null, value in rows]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    said = words(evaluation)
    assert {"One answer for the whole population", "merge title", "one answer"} <= set(said)
    assert (
        read_evaluation(evaluation).population[0]["title"]
        in read_evaluation(evaluation)._repr_html_()
    )


def test_an_older_evaluation_without_questions_is_told_by_their_ids(evaluation):
    (evaluation / "items.json").unlink()
    assert "q5" in words(evaluation)
    (evaluation / "predictions.parquet").unlink()
    assert "Five questions worked" not in words(evaluation)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("summary.json", "is not what an evaluation wrote"),
        ("items.json", "is no list of questions"),
        ("predictions.parquet", "is no table of predictions"),
    ],
)
def test_damaged_files_of_an_evaluation_are_refused(evaluation, name, said):
    (evaluation / name).write_text("{")
    with pytest.raises(InputError, match=said):
        report(evaluation)


# --- a sweep ---


def test_the_report_of_a_sweep_tells_best_points_and_what_mattered(tmp_path):
    write_sweep(tmp_path, HOSTILE)
    said = words(tmp_path)
    lead = "Best of 3 points: gain +0.0500 (95% interval +0.030 to +0.070), with coefficient 2."
    assert any(text.startswith(lead) for text in said)
    assert HOSTILE in said
    page_ = report(tmp_path).decode()
    assert page_.count("<svg") == 2
    assert page_.count("<circle") == 3 + 3
    with pytest.raises(InputError, match="no metric 'gian': did you mean 'gain'"):
        report(tmp_path, metric="gian")


# --- a triage ---


@pytest.fixture
def triage(tmp_path):
    return write_triage(tmp_path, HOSTILE)


def test_the_report_of_a_triage_tells_who_needs_a_person_and_why(triage):
    said = words(triage)
    assert "'q0' needs a person most. Reasons: model unsure (7)." in said
    assert sum(text == f"Question 6 {HOSTILE}" for text in said) == 1
    assert sum(text == f"5. Question 4 {HOSTILE}" for text in said) == 1
    assert not any(text.startswith("6. Question") for text in said)


def test_the_settings_of_a_triage_are_told_where_it_left_them(triage):
    assert "Configuration and versions" not in words(triage)
    settings = {"data": HOSTILE, "versions": {"torch": "9.9"}}
    (triage / "triage.json").write_text(json.dumps(settings))
    assert {HOSTILE, "9.9"} <= set(words(triage))


@pytest.mark.parametrize("text", ["", "{}\n", "[]\n", "{\n", "[" * 10**5])
def test_a_damaged_triage_is_refused(triage, text):
    (triage / "triage.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"is not what saepd wrote|lists no items"):
        report(triage)


# --- whichever ---


def test_a_report_is_written_into_its_folder_or_where_it_is_told(triage, tmp_path):
    path = write_report(triage)
    assert path == triage / "report.html"
    assert path.read_bytes() == report(triage)
    other = write_report(triage, tmp_path / "deep" / "page.html")
    assert other.read_bytes() == path.read_bytes()


def test_what_is_no_folder_of_results_is_refused(triage, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        report(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"holds none of steering.json, summary.json"):
        report(empty)
    (triage / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds both summary.json and triage.jsonl"):
        report(triage)


def test_a_report_beyond_five_megabytes_is_refused(triage):
    rows = [json.loads(line) for line in (triage / "triage.jsonl").read_text().splitlines()]
    rows = [{**row, "why": "x" * 10**6} for row in rows]
    (triage / "triage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="MB, beyond what a page should be"):
        report(triage)


def test_a_report_is_the_same_each_time(evaluation: Path):
    assert report(evaluation) == report(evaluation)
