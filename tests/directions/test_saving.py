import json
import pickle

import pytest
import torch
from safetensors.torch import load_file
from tiny import D_MODEL, SITE, save_tiny_model

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model
from saepd.saes.load import sae_fingerprint

PROMPTS = ["Is it so?", "And this, which is somewhat longer than that?"]


@pytest.fixture
def sae(random_sae):
    return random_sae("topk")


@pytest.fixture
def story(llama, sae):
    return {
        "model": "llama",
        "model_fingerprint": weights_fingerprint(llama),
        "sae": f"tiny/{SITE}",
        "sae_fingerprint": sae_fingerprint(sae),
        "config": {"k": 2, "note": "é"},
    }


@pytest.fixture
def dense(story):
    return Direction("dense", SITE, AddVector(torch.randn(D_MODEL)), lineage=story)


@pytest.fixture
def sparse(sae, story):
    return Direction(
        "sparse",
        SITE,
        EditLatents(sae, [40, 3], [1.5, -2.0], "clamp"),
        positions='after("so")',
        coefficient=-0.3,
        lineage=story,
    )


@pytest.fixture
def folder(tmp_path, dense, sparse):
    save_to_disk([dense, sparse], tmp_path / "new" / "folder")
    return tmp_path / "new" / "folder"


def edit_story(folder, change):
    story = json.loads((folder / CONFIG_FILE).read_text())
    change(story)
    (folder / CONFIG_FILE).write_text(json.dumps(story))


def same(one, other):
    assert type(one.edit) is type(other.edit)
    same_fields(one, other)
    same_fields(one.edit, other.edit)


def same_fields(one, other):
    for name in one.__dataclass_fields__.keys() - {"edit"}:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype, name
            assert torch.equal(left, right), name
        else:
            assert left == right, name


def test_what_is_saved_is_loaded(llama, sae, folder, dense, sparse):
    loaded = load_from_disk(folder, llama, sae)
    assert len(loaded) == 2
    same(loaded[0], dense)
    same(loaded[1], sparse)
    prompts = [f"so {prompt}" for prompt in PROMPTS]
    before = branch(llama, prompts, [dense, sparse])
    assert torch.equal(branch(llama, prompts, loaded), before)
    assert (before[:, 1:] - before[:, :1]).abs().amax(dim=(0, 2)).min() > 1e-3


@pytest.mark.parametrize("mode", ["add", "scale", "clamp", "ablate", "reconstruct"])
def test_every_mode_is_saved_and_loaded(llama, sae, tmp_path, mode):
    values = None if mode == "ablate" else torch.ones(3)
    edit = (
        Reconstruct(sae)
        if mode == "reconstruct"
        else EditLatents(sae, torch.arange(3), values, mode)
    )
    direction = Direction(mode, SITE, edit)
    save_to_disk([direction], tmp_path)
    (loaded,) = load_from_disk(tmp_path, llama, sae)
    same(loaded, direction)
    units = json.loads((tmp_path / CONFIG_FILE).read_text())["directions"][0]["units"]
    expected = {"scale": "factor", "add": "SAE activation units", "clamp": "SAE activation units"}
    assert units == expected.get(mode, "none")


def test_saving_again_replaces_all_of_it(llama, sae, folder, dense):
    save_to_disk([dense.scaled(4.0)], folder)
    (loaded,) = load_from_disk(folder, llama)
    assert loaded.coefficient == 4.0
    assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS_FILE, CONFIG_FILE])


def test_one_direction_at_two_strengths(llama, sae, tmp_path, dense, sparse):
    both = [dense, dense.scaled(2.0), sparse, sparse.scaled(2.0)]
    save_to_disk(both, tmp_path)
    for loaded, direction in zip(load_from_disk(tmp_path, llama, sae), both, strict=True):
        same(loaded, direction)


def test_dense_directions_need_no_sae(llama, tmp_path, dense):
    save_to_disk([dense], tmp_path)
    (loaded,) = load_from_disk(tmp_path, llama)
    same(loaded, dense)
    units = json.loads((tmp_path / CONFIG_FILE).read_text())["directions"][0]["units"]
    assert units == "residual units"


def test_nothing_is_pickled(llama, sae, folder, dense, sparse, monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("something was pickled")

    for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, refuse)
    save_to_disk([dense, sparse], folder)
    load_from_disk(folder, llama, sae)
    monkeypatch.undo()
    tensors = load_file(folder / WEIGHTS_FILE)
    assert sorted(tensors) == ["0.vector", "1.latents", "1.values"]
    assert json.loads((folder / CONFIG_FILE).read_text())["format"] == 1


def test_no_directions_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="no directions to save"):
        save_to_disk([], tmp_path)
    assert not list(tmp_path.iterdir())


# --- damaged files ---


@pytest.mark.parametrize("missing", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_missing_file(llama, sae, folder, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match=rf"folder holds no directions: .*{missing}"):
        load_from_disk(folder, llama, sae)


def test_a_missing_folder(llama, tmp_path):
    with pytest.raises(InputError, match="nowhere holds no directions"):
        load_from_disk(tmp_path / "nowhere", llama)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"format": 1}', '"text"', '{"directions": 3}', "\x00"]
)
def test_a_damaged_story(llama, sae, folder, text):
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(InputError, match=r"directions in .*folder are damaged"):
        load_from_disk(folder, llama, sae)


def test_a_story_that_is_no_text(llama, sae, folder):
    (folder / CONFIG_FILE).write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="are damaged"):
        load_from_disk(folder, llama, sae)


@pytest.mark.parametrize(
    "change",
    [
        lambda story: story.update(directions=5),
        lambda story: story.update(directions=["x", "y"]),
        lambda story: story["directions"][0].pop("mode"),
        lambda story: story["directions"][1].pop("lineage"),
        lambda story: story["directions"][1].update(lineage=None),
        lambda story: story["directions"][1].update(positions=3),
        lambda story: story["directions"][0].update(coefficient="large"),
        lambda story: story["directions"][0].update(hook_name=None),
        lambda story: story.pop("sha256"),
        lambda story: story.update(format=2),
    ],
)
def test_a_story_with_holes(llama, sae, folder, change):
    edit_story(folder, change)
    with pytest.raises(InputError, match=r"directions in .*folder are damaged"):
        load_from_disk(folder, llama, sae)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda story: story["directions"][1].update(mode="x"),
            "nor latents to x",
        ),
        (lambda story: story["directions"][1].update(positions="x"), "unknown positions 'x'"),
        (lambda story: story["directions"].append(story["directions"][0]), "neither a vector nor"),
        (lambda story: story["directions"].reverse(), "neither a vector nor"),
        (
            lambda story: story["directions"][0].update(hook_name="blocks.7.hook_resid_post"),
            "no site 'blocks.7",
        ),
    ],
)
def test_a_story_of_something_else(llama, sae, folder, change, match):
    edit_story(folder, change)
    with pytest.raises(InputError, match=match):
        load_from_disk(folder, llama, sae)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_cut_off_tensors(llama, sae, folder, keep):
    payload = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(payload[:keep])
    with pytest.raises(InputError, match=r"directions in .*folder are damaged"):
        load_from_disk(folder, llama, sae)


@pytest.mark.parametrize("where", [-1, -40])
def test_a_flipped_bit_among_the_tensors(llama, sae, folder, where):
    payload = bytearray((folder / WEIGHTS_FILE).read_bytes())
    payload[where] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(payload)
    with pytest.raises(InputError, match="are damaged: hash or format do not match"):
        load_from_disk(folder, llama, sae)


def test_tensors_of_other_directions(llama, sae, folder, dense, tmp_path):
    save_to_disk([dense.scaled(1.0), dense], tmp_path / "other")
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="hash or format do not match"):
        load_from_disk(folder, llama, sae)


def test_a_pickle_in_the_place_of_the_tensors(llama, sae, folder):
    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps({"0.vector": [1.0] * D_MODEL}))
    with pytest.raises(InputError, match="are damaged"):
        load_from_disk(folder, llama, sae)


# --- the wrong company ---


def test_another_model_is_refused(tiny_bridge, sae, folder):
    with pytest.raises(InputError, match="made for 'llama', not for 'gpt2'"):
        load_from_disk(folder, tiny_bridge("gpt2"), sae)


def test_other_weights_are_refused(sae, folder, tmp_path):
    other = load_model(save_tiny_model("llama", tmp_path / "llama", seed=1), device="cpu")
    with pytest.raises(InputError, match="made with other weights of this model"):
        load_from_disk(folder, other, sae)
    again = load_model(save_tiny_model("llama", tmp_path / "again" / "llama"), device="cpu")
    assert len(load_from_disk(folder, again, sae)) == 2


def test_the_fingerprint_of_weights_is_that_of_their_half_precision(llama, tmp_path):
    folder = save_tiny_model("llama", tmp_path / "llama")
    assert weights_fingerprint(llama) == weights_fingerprint(load_model(folder, device="cpu"))
    half = load_model(folder, device="cpu", dtype="bfloat16")
    assert weights_fingerprint(llama) == weights_fingerprint(half)


def test_another_sae_is_refused(llama, random_sae, folder):
    for other in (random_sae("topk", seed=1), random_sae("topk", d_sae=50), random_sae("gated")):
        with pytest.raises(InputError, match=rf"'sparse' in .* made with another SAE: tiny/{SITE}"):
            load_from_disk(folder, llama, other)


def test_latents_without_their_sae_are_refused(llama, folder):
    with pytest.raises(InputError, match=rf"'sparse' in .* is made of SAE latents: .* tiny/{SITE}"):
        load_from_disk(folder, llama)


def test_directions_without_lineage_are_taken_at_their_word(tiny_bridge, random_sae, tmp_path):
    sae = random_sae()
    anonymous = Direction("a", SITE, EditLatents(sae, torch.arange(2), torch.ones(2)))
    save_to_disk([anonymous], tmp_path)
    (loaded,) = load_from_disk(tmp_path, tiny_bridge("gpt2"), sae)
    same(loaded, anonymous)
