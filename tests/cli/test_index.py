import json
import shutil
from pathlib import Path

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


def test_labels_that_others_gave_are_shown_and_checked_first(run, files, texts, tmp_path):
    sae = Path(shutil.copytree(files.sae, tmp_path / "sae"))
    where = ("--model", files.model, "--sae", sae, "--device", "cpu")
    row = {"modelId": "tiny", "layer": "1-res", "index": "5", "description": "about zebras"}
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps(row) + "\n")
    asked = ("index", "--texts", texts, "--out", sae / "index", "--labels", labels, *where)
    refused(run(*asked), "has no neuronpedia_id in its metadata")
    config = json.loads((sae / "cfg.json").read_text())
    for name in ("tiny/2-res", "tiny/1-res"):
        config["metadata"]["neuronpedia_id"] = name
        (sae / "cfg.json").write_text(json.dumps(config))
        done = run(*asked)
        if name == "tiny/2-res":
            refused(done, "line 1 is a label of 'tiny/1-res', and this SAE is 'tiny/2-res'")
            assert not (sae / "index").exists()
    assert done.code == 0, done.err
    shown = run("search", "--latent", 5, "--sae", sae, "--model", files.model)
    assert "Neuronpedia tiny/1-res says: about zebras" in shown.out
    found = run("search", "zebra", "--sae", sae, "--model", files.model)
    assert "5, Neuronpedia tiny/1-res says: about zebras" in found.out
    refused(run(*asked[:6], tmp_path / "none", *where), "--labels", "there is no such file")
