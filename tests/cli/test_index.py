import json

import pytest
from command_line import refused

TEXTS = [f"the {word} of {n} trees, and then {word}." for n in range(6) for word in ("bus", "sea")]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_an_index_is_built_and_told(run, where, texts, tmp_path):
    out = tmp_path / "index"
    asked = ("index", "--texts", texts, "--out", out, "--about", "made up", *where)
    done = run(*asked, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["n_passages"], found["about"], found["d_sae"]) == (12, "made up", 64)
    again = run(*asked)
    assert again.code == 0, again.err
    assert "64 latents at blocks.1.hook_resid_post" in again.out


def test_texts_that_are_missing_are_refused_before_the_model_is_loaded(run, tmp_path):
    done = run("index", "--texts", tmp_path / "none.txt", "--out", tmp_path / "x", "--model", "no")
    refused(done, "there is no such file")
    (tmp_path / "file").write_text("x")
    done = run("index", "--texts", tmp_path / "file", "--out", tmp_path / "file")
    refused(done, "is a file")
