import json
from pathlib import Path

import pytest
import torch
from command_line import refused
from safetensors.torch import save_file
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.lineage import read_lineage
from saepd.directions.saving import save_to_disk
from saepd.models.load import load_model


def test_a_folder_is_exported_and_the_loss_is_told(run, steering, tmp_path):
    out = tmp_path / "out"
    command = ("export", steering, "--to", "llama.cpp", "--out", out, "--device", "cpu")
    refused(run(*command), "writes at positions answer", "(left, right)", "--allow-loss")
    assert not out.exists()
    done = run(*command, "--allow-loss")
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir()} == {"left.gguf", "right.gguf", "export.json"}
    for text in ("written for llama.cpp", "left: strength times", "lost: it writes at positions"):
        assert text in done.out
    found = json.loads(run(*command, "--allow-loss", "--json").out)
    assert [one["perspective"] for one in found] == ["left", "right"]
    assert found[0]["refit"]["kl_before"] > 0


def test_of_a_direction_that_writes_nothing_it_is_said(run, files, tmp_path):
    model = load_model(files.model, device="cpu")
    nothing = Direction("idle", SITE, AddVector(torch.zeros(D_MODEL)))
    save_to_disk(nothing, tmp_path / "idle", model)
    command = ("export", tmp_path / "idle", "--to", "repeng", "--out", tmp_path / "out")
    done = run(*command, "--allow-loss", "--model", files.model, "--device", "cpu")
    assert done.code == 0, done.err
    assert "idle: its direction writes nothing, so its vector is zero" in done.out
    assert "strength times" not in done.out


def test_an_unknown_format_is_refused_before_anything_is_loaded(run, tmp_path):
    done = run("export", tmp_path / "none", "--to", "reppeng", "--out", tmp_path)
    refused(done, "unknown format 'reppeng': did you mean 'repeng'?")
    done = run("import", tmp_path / "none", "--from", "x", "--out", tmp_path)
    refused(done, "unknown format 'x'")


@pytest.fixture
def vector(tmp_path):
    path = tmp_path / "north.safetensors"
    save_file({"layers.1": torch.ones(D_MODEL)}, path)
    return path


def test_an_imported_vector_is_a_folder_like_any_other(run, files, vector, tmp_path):
    out = tmp_path / "steering"
    command = ("import", vector, "--from", "tensors", "--out", out, "--positions", "answer")
    done = run(*command, "--model", files.model, "--device", "cpu")
    assert done.code == 0, done.err
    assert "blocks.1.hook_resid_post" in done.out
    assert read_lineage(out).perspectives == ("north",)
    asked = ("answer", "So?", "--options", "Yes", "No", "--json", "--steering", out)
    done = run(*asked, "--device", "cpu")
    assert done.code == 0, done.err
    branches = json.loads(done.out)["branches"]
    assert branches["north"] != pytest.approx(branches["base"], abs=1e-4)
    again = run(*command, "--model", files.model, "--device", "cpu", "--perspective", "south")
    assert again.code == 0, again.err
    assert read_lineage(out).perspectives == ("south",)


def test_a_fit_is_not_written_over_by_what_is_made_at_once(run, files, where, steering, vector):
    story = (Path(steering) / "steering.json").read_bytes()
    imported = ("import", vector, "--from", "tensors", "--out", steering)
    refused(run(*imported, "--model", files.model), f"--out {steering} holds directions of saepd")
    by_hand = ("steer", "--features", "1=2", "--out", steering, *where)
    refused(run(*by_hand), f"--out {steering} holds directions of saepd fit")
    mixed = ("fit", "--like", steering, "--out", f"{steering}/../steering")
    refused(run(*mixed), "is the folder of --like")
    assert (Path(steering) / "steering.json").read_bytes() == story


def test_vectors_of_several_sites_are_one_perspective(run, files, tmp_path):
    path, out = tmp_path / "v.safetensors", tmp_path / "steering"
    save_file({f"layers.{i}": torch.ones(D_MODEL) for i in (1, 2)}, path)
    command = ("import", path, "--from", "tensors", "--out", out, "--model", files.model)
    done = run(*command, "--device", "cpu")
    assert done.code == 0, done.err
    assert "blocks.1" in done.out and "blocks.2" in done.out
    asked = ("answer", "So?", "--options", "Yes", "No", "--json", "--steering", out)
    done = run(*asked, "--device", "cpu")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["branches"]) == ["base", "v"]


def test_a_vector_of_another_model_is_refused(run, files, tmp_path):
    path = tmp_path / "v.safetensors"
    save_file({"layers.1": torch.ones(3)}, path)
    command = ("import", path, "--from", "tensors", "--out", tmp_path / "out")
    refused(run(*command, "--model", files.model, "--device", "cpu"), "has width 3")
    assert not (tmp_path / "out").exists()
