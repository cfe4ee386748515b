import json
from pathlib import Path

from command_line import LENIENT, refused, write_rows


def test_triage_ranks_asks_and_its_answers_are_feedback(
    run, files, where, steering, items, tmp_path
):
    quick = ["--n-samples", "2", "--max-new-tokens", "4"]
    rows = [json.loads(line) for line in Path(items).read_text().splitlines()]
    asked = {row["id"] for row in rows} | {"free"}
    data = write_rows(
        tmp_path / "t.jsonl", [*rows, {"id": "free", "prompt": "Why?", "options": []}]
    )
    to_triage = ["triage", "--data", data, "--steering", steering, *where, *quick]
    out = tmp_path / "out"
    done = run(*to_triage, "--budget", 3, "--out", out, "--feedback", files.feedback)
    assert done.code == 0, done.err
    assert "flips the answer" in done.out or "entropy" in done.out
    ranked = [json.loads(line) for line in (out / "triage.jsonl").read_text().splitlines()]
    assert [row["rank"] for row in ranked] == [1, 2, 3]
    assert {row["id"] for row in ranked} <= asked
    settings = json.loads((out / "triage.json").read_text())
    assert (settings["items"], settings["budget"]) == (5, 3)
    assert settings["config"]["epistemic"]["n_samples"] == 2
    reported = run("report", out)
    assert reported.code == 0, reported.err
    assert "Triage of 3 items" in (out / "report.html").read_text(encoding="utf-8")
    questions = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert [row["item"] for row in questions] == [row["id"] for row in ranked]
    # Unanswered, they are refused; answered, they are fitted on with what there was before.
    empty = run("fit", "--feedback", out / "questions.jsonl", "--out", tmp_path / "no", *where)
    assert empty.code == 2 and "answer: missing: give an answer" in empty.err
    again = run(*to_triage, "--budget", 3, "--out", out)
    assert again.code == 0, again.err
    answered = [
        row | {"perspective": "left", "answer": (row["options"] or ["So."])[0]} for row in questions
    ]
    before = [json.loads(line) for line in Path(files.feedback).read_text().splitlines()]
    written = Path(write_rows(out / "questions.jsonl", [*questions[:2], answered[2]])).read_bytes()
    refused(run(*to_triage, "--out", out), "questions.jsonl holds answers, which would be lost")
    assert (out / "questions.jsonl").read_bytes() == written
    together = write_rows(tmp_path / "both.jsonl", [*before, *answered])
    fitted = run(
        "fit", "--feedback", together, "--out", tmp_path / "again", "--json", *where, *LENIENT
    )
    assert fitted.code == 0, fitted.err
    counts = {d["perspective"]: d["n_feedback"] for d in json.loads(fitted.out)["directions"]}
    assert counts == {"left": 11, "right": 8}


def test_triage_refuses_what_it_cannot_rank(run, where, steering, items, tmp_path):
    asked = ["triage", "--steering", steering, *where]
    out = ["--out", tmp_path / "out"]
    refused(run(*asked, "--data", items, "--budget", 0, *out), "--budget is 0")
    refused(run(*asked, "--data", tmp_path / "none.jsonl", *out), "none.jsonl")
    one = write_rows(tmp_path / "one.jsonl", [{"id": "q", "prompt": "Q?", "options": ["Yes"]}])
    bad = run(*asked, "--data", one, *out)
    assert bad.code == 2 and "line 1, options: only one option ('Yes')" in bad.err
    assert not (tmp_path / "out").exists()
