import json

from saepd.cli import demo
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE


def test_the_demo_is_an_evaluation_on_the_packaged_survey(run, where, tmp_path, monkeypatch):
    # A tiny model's context has no room for an example and a question of the survey.
    methods = tuple(name for name in demo.DEMO_METHODS if name != "few-shot")
    monkeypatch.setattr(demo, "DEMO_METHODS", methods)
    out = tmp_path / "demo"
    small = ("--n-feedback", 6, "--draws", 1, "--limit", 2)
    done = run("demo", "--out", out, *small, *where)
    assert done.code == 0, done.err
    results = json.loads((out / "results.json").read_text())
    shown = [row["method"] for row in results["rows"] if row["perspective"] == "all"]
    assert tuple(shown) == methods
    shown = " ".join(done.out.split())
    assert results["finding"] in shown
    people = results["example"]["people"]
    assert people.keys() == {"Democrat", "Independent", "Republican"}
    assert results["example"]["branches"].keys() == {"base", *people}
    assert {found["perspective"] for found in results["features"]} == people.keys()
    assert {path.name for path in (out / "steering").iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    # It is the same evaluation: asked for by its task, all of it is there already.
    asked = ("--task", "gss", "--methods", *methods, "--out", out, "--json")
    again = run("evaluate", *asked, *small, *where)
    assert again.code == 0, again.err
    assert json.loads(again.out)["rows"] == results["rows"]
    assert json.loads((out / "run.json").read_text())["seconds"] == {}
