import hashlib
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from gated import gates
from safetensors.torch import load_file, save
from tiny import D_MODEL, SITE, save_tiny_model, save_tiny_sae

from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE
from saepd.directions import saving
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Gate
from saepd.directions.lineage import read_lineage
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model
from saepd.models.wording import ReadoutConfig
from saepd.saes.load import load_sae, sae_fingerprint

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
    # What is saved says what it was made with, whoever made it.
    assert other.lineage.items() <= one.lineage.items()


def same_fields(one, other):
    for name in one.__dataclass_fields__.keys() - {"edit", "lineage"}:
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
    assert json.loads((folder / CONFIG_FILE).read_text())["format"] == 2


def test_no_directions_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="no directions to save"):
        save_to_disk([], tmp_path)
    assert not list(tmp_path.iterdir())


# --- readouts and the verdict ---


def test_a_readout_is_saved_and_loaded_to_the_last_digit(llama, tmp_path, dense):
    config = ReadoutConfig(template="Q: {prompt}", length_normalised=True)
    readout = FittedReadout(config, [1 / 3, 0.1, -0.2, 1e-300], [0.7, 1e17, 0.3, -5.0])
    save_to_disk([replace(dense, readout=readout), replace(dense, coefficient=2.0)], tmp_path)
    first, second = load_from_disk(tmp_path, llama)
    same(first, replace(dense, readout=readout))
    assert first.readout == readout and second.readout is None
    assert read_lineage(tmp_path).readout == config


def test_a_verdict_is_told_without_loading_anything(tmp_path, dense):
    save_to_disk(dense, tmp_path, verdict={"gain": 0.25, "said": "It helps.", "by": (1, 2)})
    assert read_lineage(tmp_path).verdict == {"gain": 0.25, "said": "It helps.", "by": [1, 2]}
    save_to_disk(dense, tmp_path)
    assert read_lineage(tmp_path).verdict is None
    with pytest.raises(InputError, match="the verdict is no JSON"):
        save_to_disk(dense, tmp_path, verdict={"gain": float("nan")})
    assert read_lineage(tmp_path).verdict is None


@pytest.mark.parametrize(
    ("lineage", "said"), [({}, "a verdict"), ({"learned": {}}, "is not used; fit them again")]
)
def test_what_an_earlier_version_saved_is_loaded_with_a_word(
    llama, sae, folder, dense, caplog, lineage, said
):
    def older(story):
        story["format"] = 1
        del story["verdict"]
        for entry in story["directions"]:
            del entry["readout"], entry["gate"]
            entry["lineage"].update(lineage)

    edit_story(folder, older)
    first, second = load_from_disk(folder, llama, sae)
    assert torch.equal(first.edit.vector, dense.edit.vector)
    assert first.readout is None and second.readout is None
    assert read_lineage(folder).verdict is None
    [record] = caplog.records
    assert record.message.startswith(f"{folder}: an earlier version saved these directions")
    assert record.message.endswith(said)


@pytest.mark.parametrize(
    "change",
    [
        {"base": [0.5, 0.0]},
        {"base": [0.5, 0.0, 0.0]},
        {"own": [0.5, 0.0, 0.0, None]},
        {"own": [0.5, 0.0, 0.0, True]},
        {"own": ["0.5", 0, 0, 0]},
        {"own": [[0.5, 0, 0, 0]]},
        {"own": [10**400, 0, 0, 0]},
        {"own": {}},
        {"config": {}},
        {"config": {"readout": "text", "style": "plain"}},
        {"more": 3},
    ],
)
def test_a_damaged_readout_is_refused(llama, tmp_path, dense, change):
    readout = FittedReadout(ReadoutConfig(), [0.5, 0, 0, 0], [0.5, 0, 0, 0])
    save_to_disk(replace(dense, readout=readout), tmp_path)
    edit_story(tmp_path, lambda story: story["directions"][0]["readout"].update(change))
    for read in (lambda: load_from_disk(tmp_path, llama), lambda: read_lineage(tmp_path)):
        with pytest.raises(InputError, match=r"are damaged: .* has no readout that can be read"):
            read()


@pytest.mark.parametrize(
    "change", [{"style": 3}, {"template": 1}, {"length_normalised": 1}, {"style": "x"}, {"x": 1}]
)
def test_a_readout_of_a_damaged_config_is_refused(llama, tmp_path, dense, change):
    readout = FittedReadout(ReadoutConfig(), [0.5, 0, 0, 0], [0.5, 0, 0, 0])
    save_to_disk(replace(dense, readout=readout), tmp_path)
    edit_story(tmp_path, lambda story: story["directions"][0]["readout"]["config"].update(change))
    with pytest.raises(InputError, match=r"are damaged: .* has no readout that can be read"):
        load_from_disk(tmp_path, llama)


# --- gates ---


@pytest.fixture
def gated(random_sae, sae, dense):
    found = gates(random_sae, d_sae=48, hook_name=SITE)
    return [replace(dense, gate=replace(g, sae=g.sae and sae)) for g in found.values()]


def test_gates_are_saved_and_loaded(llama, sae, tmp_path, gated):
    save_to_disk(gated, tmp_path)
    loaded = load_from_disk(tmp_path, llama, sae)
    for one, other in zip(loaded, gated, strict=True):
        assert repr(one) == repr(other)
        for name in one.gate.__dataclass_fields__:
            left, right = getattr(one.gate, name), getattr(other.gate, name)
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    assert torch.equal(branch(llama, PROMPTS, loaded), branch(llama, PROMPTS, gated))


def test_a_gate_of_latents_needs_their_sae_and_one_of_the_residual_none(
    llama, random_sae, tmp_path, gated
):
    save_to_disk([d for d in gated if d.gate.sae is None], tmp_path)
    assert len(load_from_disk(tmp_path, llama)) == 5
    save_to_disk([d for d in gated if d.gate.sae is not None], tmp_path)
    assert read_lineage(tmp_path).sae == f"tiny/{SITE}"
    with pytest.raises(InputError, match=r"'dense' in .* is made of SAE latents, .* load its SAE"):
        load_from_disk(tmp_path, llama)
    with pytest.raises(InputError, match=r"'dense' in .* was made with another SAE"):
        load_from_disk(tmp_path, llama, random_sae("topk", seed=1))
    mixed = replace(gated[1], edit=EditLatents(random_sae("topk", seed=1), [0], [1.0]))
    with pytest.raises(InputError, match="its gate reads those of"):
        save_to_disk(mixed, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"reads": "x"},
        {"reads": 3},
        {"reads": "latents"},
        {"rule": "x"},
        {"hook_name": "x"},
        {"hook_name": "blocks.3.hook_resid_post"},
        {"bias": True},
        {"bias": "1"},
        {"threshold": None},
        {"cosine": 1},
        {"limits": 1},
        {"limits": [1]},
        {"limits": ["a", "b"]},
    ],
)
def test_a_damaged_gate_is_refused(llama, sae, tmp_path, gated, change):
    save_to_disk(gated[:1], tmp_path)
    edit_story(tmp_path, lambda story: story["directions"][0]["gate"].update(change))
    with pytest.raises(InputError, match=r"damaged|does not say of which SAE"):
        load_from_disk(tmp_path, llama, sae)


@pytest.mark.parametrize("gate", [3, [], "x", {}])
def test_what_is_no_gate_is_refused(llama, folder, sae, gate):
    edit_story(folder, lambda story: story["directions"][0].update(gate=gate))
    with pytest.raises(InputError, match="has a gate that needs hook_name"):
        load_from_disk(folder, llama, sae)


# --- damaged files ---


class Crashed(BaseException):
    """The end of a process, after which nothing is tidied up."""


def save_until(step, monkeypatch, direction, folder):
    """Save, and end before the n-th time that a file takes its place."""
    counted, own = iter(range(1, 99)), os.replace

    def rename(*names):
        if next(counted) == step:
            raise Crashed
        own(*names)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", rename)
        save_to_disk(direction, folder)


@pytest.mark.parametrize("again", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_crash_while_saving_loses_nothing(llama, folder, dense, monkeypatch, step, again):
    save_to_disk(dense, folder)
    held = 1.0
    for n, coefficient in ((step, 4.0), (again, 5.0)):
        other = Direction(
            "dense", SITE, AddVector(torch.full((D_MODEL,), coefficient)), coefficient=coefficient
        )
        with pytest.raises(Crashed):
            save_until(n, monkeypatch, other, folder)
        (loaded,) = load_from_disk(folder, llama)
        # Either what was there before, or all of the new.
        assert loaded.coefficient in (held, coefficient)
        held = loaded.coefficient
        if held != 1.0:
            assert torch.equal(loaded.edit.vector, torch.full((D_MODEL,), held))
    save_to_disk(dense.scaled(7.0), folder)
    (loaded,) = load_from_disk(folder, llama)
    assert loaded.coefficient == 7.0
    assert torch.equal(loaded.edit.vector, dense.edit.vector)
    assert load_file(folder / WEIGHTS_FILE)["0.vector"].equal(dense.edit.vector)


def test_a_folder_is_read_whole_while_somebody_saves_there(llama, folder, dense, monkeypatch):
    other = Direction("other", SITE, AddVector(torch.full((D_MODEL,), 4.0)))
    read, waits = saving.read_story, iter([True])

    def read_and_wait(where):
        story = read(where)
        if next(waits, False):
            save_to_disk(other, folder)
        return story

    monkeypatch.setattr(saving, "read_story", read_and_wait)
    (loaded,) = load_from_disk(folder, llama)
    assert loaded.perspective == "other"
    assert torch.equal(loaded.edit.vector, other.edit.vector)


def test_a_story_cannot_name_numbers_elsewhere(folder, llama, dense, tmp_path):
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"mine")
    edit_story(folder, lambda story: story.update(sha256="x/../../../outside"))
    with pytest.raises(InputError, match="no SHA-256"):
        load_from_disk(folder, llama)
    save_to_disk(dense, folder)
    assert outside.read_bytes() == b"mine"


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
        lambda story: story.update(format=3),
        lambda story: story.update(format=True),
        lambda story: story.update(verdict=[1]),
        lambda story: story["directions"][0].update(readout={"base": [1, 0, 0]}),
    ],
)
def test_a_story_with_holes(llama, sae, folder, change):
    edit_story(folder, change)
    with pytest.raises(InputError, match=r"directions in .*folder are damaged"):
        load_from_disk(folder, llama, sae)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda story: story["directions"][1].update(mode="x"), "has mode 'x': it must be one"),
        (lambda story: story["directions"][1].update(positions="x"), "unknown positions 'x'"),
        (
            lambda story: story["directions"].append(story["directions"][0]),
            "no latents to add",
        ),
        (
            lambda story: story["directions"].reverse(),
            "can only be added",
        ),
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
    with pytest.raises(InputError, match=r"are damaged: steering\.safetensors is not the file"):
        load_from_disk(folder, llama, sae)


def test_tensors_of_other_directions(llama, sae, folder, dense, tmp_path):
    save_to_disk([dense.scaled(1.0), dense], tmp_path / "other")
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match=r"steering\.safetensors is not the file that"):
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
    with pytest.raises(InputError, match=rf"'sparse' in .* is made of SAE latents, .* tiny/{SITE}"):
        load_from_disk(folder, llama)


def test_a_direction_made_by_hand_says_what_it_was_made_with(llama, random_sae, sae, tmp_path):
    by_hand = Direction("a", SITE, EditLatents(sae, [0, 1], [1.0, 1.0]))
    save_to_disk(by_hand, tmp_path)
    (loaded,) = load_from_disk(tmp_path, llama, sae)
    same(loaded, by_hand)
    assert loaded.lineage["sae_fingerprint"] == sae_fingerprint(sae)
    assert loaded.lineage["sae"] == f"tiny/{SITE}"
    with pytest.raises(InputError, match=r"'a' in .* was made with another SAE"):
        load_from_disk(tmp_path, llama, random_sae("topk", seed=1))


def test_a_direction_made_by_hand_for_a_model_is_not_another_models(llama, tiny_bridge, tmp_path):
    save_to_disk([Direction("a", SITE, AddVector(torch.ones(D_MODEL)))], tmp_path, model=llama)
    (loaded,) = load_from_disk(tmp_path, llama)
    assert loaded.lineage["model_fingerprint"] == weights_fingerprint(llama)
    with pytest.raises(InputError, match="made for 'llama', not for 'gpt2'"):
        load_from_disk(tmp_path, tiny_bridge("gpt2"))


def test_the_same_weights_under_another_name_are_the_same_model(folder, sae, tmp_path):
    other = load_model(save_tiny_model("llama", tmp_path / "renamed"), device="cpu")
    assert other.cfg.model_name == "renamed"
    assert len(load_from_disk(folder, other, sae)) == 2


def test_the_sae_of_another_site_is_refused(llama, random_sae, sae, tmp_path):
    save_to_disk(Direction("a", SITE, EditLatents(sae, [0, 1], [1.0, 1.0])), tmp_path)
    elsewhere = random_sae("topk", hook_name="blocks.2.hook_resid_post")
    assert sae_fingerprint(elsewhere) == sae_fingerprint(sae)
    with pytest.raises(InputError, match=rf"made with another SAE: tiny/{SITE}"):
        load_from_disk(tmp_path, llama, elsewhere)


def test_directions_of_several_saes_and_sites_are_saved_together(
    llama, random_sae, dense, tmp_path
):
    places = (SITE, "blocks.2.hook_resid_post")
    saes = [random_sae(seed=seed, hook_name=place) for seed, place in enumerate(places)]
    parts = [
        Direction("both", place, EditLatents(sae, [seed, 4], [3.0, -2.0]))
        for seed, (sae, place) in enumerate(zip(saes, places, strict=True))
    ]
    gate = Gate(SITE, torch.ones(saes[0].cfg.d_sae), sae=saes[0])
    both = replace(parts[0], coefficient=2.0, gate=gate, also=(parts[1], 0.5 * parts[1]))
    other = replace(parts[1], perspective="second")
    save_to_disk([both, other, dense], tmp_path)
    assert read_lineage(tmp_path).perspectives == ("both", "second", dense.perspective)
    loaded = load_from_disk(tmp_path, llama, saes)
    assert [len(d.parts) for d in loaded] == [3, 1, 1]
    expected = branch(llama, PROMPTS, [both, other, dense])
    assert torch.equal(branch(llama, PROMPTS, loaded), expected)
    with pytest.raises(InputError, match="was made with another SAE"):
        load_from_disk(tmp_path, llama, saes[0])


def test_saes_that_a_folder_names_are_loaded(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path / "model"), device="cpu")
    places = (SITE, "blocks.2.hook_resid_post")
    folders = [save_tiny_sae(tmp_path / f"sae{i}", hook_name=s) for i, s in enumerate(places)]
    saes = [load_sae(folder, model=model) for folder in folders]
    one, other = (
        Direction("d", place, EditLatents(sae, [1], [2.0]))
        for place, sae in zip(places, saes, strict=True)
    )
    out = tmp_path / "steering"
    save_to_disk(replace(one, also=(other,)), out, model)
    [loaded] = load_from_disk(out, model)
    assert torch.equal(branch(model, PROMPTS, [loaded]), branch(model, PROMPTS, [[one, other]]))
    save_tiny_sae(folders[1], hook_name=SITE)
    with pytest.raises(InputError, match="than there is now where its own was"):
        load_from_disk(out, model)


def test_directions_of_two_models_are_not_saved_together(dense, tmp_path):
    other = replace(dense, lineage={**dense.lineage, "model_fingerprint": "0123"})
    with pytest.raises(InputError, match=r"of several models .* in a folder of its own"):
        save_to_disk([dense, other], tmp_path)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.ones(1), object()])
def test_a_lineage_that_is_no_json_is_not_saved(dense, tmp_path, value):
    with pytest.raises(InputError, match="direction 'dense': its lineage is no JSON"):
        save_to_disk([replace(dense, lineage={"x": value})], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [3, None, "text", [3], {"a": 1}])
def test_what_is_no_direction_is_not_saved(given, tmp_path):
    with pytest.raises(InputError, match="is no direction: give a Direction"):
        save_to_disk(given, tmp_path)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"1.latents": torch.tensor([-1, 3])}, r"must be in 0\.\.47"),
        ({"1.latents": torch.tensor([3, 48])}, r"must be in 0\.\.47"),
        ({"1.latents": torch.tensor([3.0, 4.0])}, "whole numbers"),
        ({"1.values": torch.tensor([1.0, float("nan")])}, "must be finite"),
        ({"1.values": torch.ones(3)}, "2 latents but 3 values"),
        ({"0.vector": torch.full((D_MODEL,), float("inf"))}, "must be finite"),
        ({"0.vector": torch.ones(2, D_MODEL)}, "list of numbers"),
        ({"1.latents": None}, "no latents to clamp"),
        ({"1.values": None}, "needs values"),
        ({"0.vector": None}, "no latents to add"),
        ({"1.vector": torch.ones(D_MODEL)}, "both a vector and latents to write"),
        ({"0.gate_scale": None}, "gate lacks weights, mean or scale"),
        ({"0.gate_scale": torch.zeros(D_MODEL)}, "scale must be positive"),
        ({"0.gate_weights": torch.ones(3)}, "3 weights but its mean has 32"),
    ],
)
def test_numbers_that_make_no_sense(llama, sae, folder, tensors, match):
    first = replace(load_from_disk(folder, llama, sae)[0], gate=Gate(SITE, torch.ones(D_MODEL)))
    save_to_disk([first, load_from_disk(folder, llama, sae)[1]], folder)
    numbers = {**load_file(folder / WEIGHTS_FILE), **tensors}
    payload = save({name: value for name, value in numbers.items() if value is not None})
    (folder / WEIGHTS_FILE).write_bytes(payload)
    edit_story(folder, lambda story: story.update(sha256=hashlib.sha256(payload).hexdigest()))
    with pytest.raises(InputError, match=match):
        load_from_disk(folder, llama, sae)


def test_settings_of_numpy_are_saved_as_plain_numbers(llama, tmp_path, dense):
    made = {"strength": np.float32(0.5), "k": np.int64(3), "anyway": np.True_}
    save_to_disk(replace(dense, lineage=made), tmp_path)
    [loaded] = load_from_disk(tmp_path, llama)
    assert {name: loaded.lineage[name] for name in made} == {
        "strength": 0.5,
        "k": 3,
        "anyway": True,
    }


def test_what_cannot_be_saved_or_loaded_is_refused(llama, tmp_path, dense, folder):
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(InputError, match="is a file: name a folder"):
        save_to_disk(dense, file)
    assert file.read_text() == "kept"
    with pytest.raises(InputError, match=r"the verdict is 'good': give .* verdict\.as_json"):
        save_to_disk(dense, tmp_path / "new", verdict="good")
    with pytest.raises(InputError, match="a model with hooks is needed"):
        save_to_disk(dense, tmp_path / "new", model="gpt2")
    with pytest.raises(InputError, match="an SAE is needed, as load_sae returns it, not 'folder'"):
        load_from_disk(folder, llama, "folder")
    with pytest.raises(InputError, match="5 is no folder: give its path"):
        read_lineage(5)
