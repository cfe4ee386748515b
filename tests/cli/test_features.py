import json

from command_line import LENIENT


def test_features_are_explained(run, files, where, tmp_path):
    out = tmp_path / "features.json"
    done = run(
        "features", "--feedback", files.feedback, "--top", 2, "--json", "--out", out, *where,
        *LENIENT,
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
