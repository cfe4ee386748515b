import json
import shutil
from pathlib import Path

from command_line import UNSCREENED

from saepd.cli.options import print_table


def test_features_are_explained(run, files, where, tmp_path):
    out = tmp_path / "features.json"
    done = run(
        "features", "--feedback", files.feedback, "--top", 2, "--json", "--out", out, *where,
        *UNSCREENED,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads(out.read_text())
    assert [f["perspective"] for f in found["features"]] == ["left"] * 2 + ["right"] * 2
    for feature in found["features"]:
        assert 0 <= feature["latent"] < 64
        assert set(feature["effect"]) == {"left", "right"}
        assert len(feature["tokens"]) == 10


def test_features_without_a_screen_are_json_too(run, files, where, tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    arguments = ("--feedback", files.feedback, "--k", 0, "--top", 2, "--json", *where)
    done = run("features", *arguments, "--out", tmp_path / "features.json")
    assert done.code == 0, done.err
    features = json.loads(done.out, parse_constant=refuse)["features"]
    assert [f["stability"] for f in features] == [None] * 4


def test_the_table_shows_contexts_and_whose_they_are(run, files, where):
    done = run("features", "--feedback", files.feedback, "--top", 2, *where, *UNSCREENED)
    assert done.code == 0, done.err
    shown = done.out.split("strongest in the feedback of all perspectives")[1:]
    assert len(shown) == 2
    asked = ("features", "--feedback", files.feedback, "--top", 2, "--json", *where, *UNSCREENED)
    features = json.loads(run(*asked).out)["features"]
    first = next(feature for feature in features if feature["contexts"])
    context = first["contexts"][0]
    wanted = f"  {first['latent']}: {context['activation']:.2f} "
    line = next(line for line in done.out.splitlines() if line.startswith(wanted))
    assert line.endswith(f"({', '.join(context['perspectives'])})")
    assert repr(context["text"][-20:])[1:] in line


def test_latents_with_pages_are_linked(run, files, tmp_path):
    sae = Path(shutil.copytree(files.sae, tmp_path / "sae"))
    config = json.loads((sae / "cfg.json").read_text())
    config["metadata"]["neuronpedia_id"] = "tiny/1-res"
    (sae / "cfg.json").write_text(json.dumps(config))
    where = ("--model", files.model, "--sae", sae, "--device", "cpu")
    done = run("features", "--feedback", files.feedback, "--top", 2, *where, *UNSCREENED)
    assert done.code == 0, done.err
    links = [line for line in done.out.splitlines() if line.startswith("Their pages: ")]
    assert len(links) == 2
    assert "https://neuronpedia.org/quick-list/?name=left&features=" in links[0]
    assert "%22layer%22%3A%20%221-res%22" in links[0]


def test_headings_are_not_broken_within_a_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ["method", "JS distance", "95% interval", "total variation", "accuracy", "note"]
    print_table("t", columns, [["a long name of a method", *["0.123"] * 4, "word " * 30]])
    shown = capsys.readouterr().out
    assert all(word in shown for column in columns for word in column.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_brackets_in_a_table_are_text(capsys):
    print_table("t", ["word", "n"], [["the [bus] and [/b]", "1"]], sentences=("word",))
    assert "the [bus] and [/b]" in capsys.readouterr().out
