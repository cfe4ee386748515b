import json

import numpy as np
import pytest
import torch
from tiny import D_MODEL

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Gate
from saepd.interchange.exporting import export_directions
from saepd.interchange.importing import import_direction
from saepd.interchange.record import file_stems
from saepd.interchange.registry import READERS, TARGETS
from saepd.models.wording import ReadoutConfig


@pytest.mark.parametrize("to", [name for name in TARGETS if name in READERS])
def test_what_is_exported_and_imported_steers_alike(llama, plain, tmp_path, to):
    left, more = plain(1, seed=1, coefficient=2.0), plain(2, seed=2)
    right = plain(2, seed=3, perspective="right")
    written = export_directions(llama, [left, right, more], to, tmp_path)
    assert [one.perspective for one in written] == ["left", "right"]
    assert not any(one.losses or one.refit for one in written)
    read = [import_direction(one.files[0], to, llama) for one in written]
    prompts = ["So it goes", "Once"]
    ours = branch(llama, prompts, [[left, more], right])
    assert torch.allclose(ours, branch(llama, prompts, read), atol=1e-6)
    assert [d.perspective for d in read] == ["left", "right"]
    assert [len(d.parts) for d in read] == [2, 1]
    assert read[0].lineage["imported"]["format"] == to


def test_the_story_beside_the_files_says_how_they_came_about(llama, plain, tmp_path):
    one = plain(coefficient=3.0, lineage={"feedback": "abc"})
    export_directions(llama, one, "repeng", tmp_path)
    story = json.loads((tmp_path / "export.json").read_text())
    assert story["format"] == "repeng"
    [entry] = story["directions"]
    assert entry["files"] == ["left.gguf"]
    assert entry["norm"] == pytest.approx(3.0, rel=1e-5)
    assert entry["lineage"] == {"feedback": "abc"}


@pytest.mark.parametrize("positions", ["all", "answer", "last(2)"])
def test_other_positions_are_refused_or_written_at_every_token_as_strongly(
    llama, plain, tmp_path, positions
):
    one = plain(positions=positions, norm=3.0)
    with pytest.raises(InputError, match=f"writes at positions {positions[:4]}.*--allow-loss"):
        export_directions(llama, one, "llama.cpp", tmp_path)
    assert not list(tmp_path.iterdir())
    [written] = export_directions(llama, one, "llama.cpp", tmp_path, allow_loss=True)
    refit = written.refit
    assert refit is not None
    read = import_direction(written.files[0], "llama.cpp", llama)
    base = float(kl_to_base(branch(llama, NEUTRAL_PROMPTS, [one])))
    now = float(kl_to_base(branch(llama, NEUTRAL_PROMPTS, [read])))
    assert (refit.kl_before, refit.kl_after) == pytest.approx((base, now), rel=1e-3)
    # The KL is no straight line in the strength, and this comes near all the same.
    assert now == pytest.approx(base, rel=0.05)
    assert written.norm == pytest.approx(refit.factor * 3.0, rel=1e-5)


def test_what_acts_on_the_answer_alone_keeps_its_strength(llama, plain, tmp_path):
    one = plain(positions="generated", norm=3.0)
    [written] = export_directions(llama, one, "repeng", tmp_path, allow_loss=True)
    assert (written.refit.factor, written.refit.kl_before) == (1.0, 0.0)


def test_the_input_of_a_block_is_the_output_of_the_one_before(llama, plain, tmp_path):
    one = plain(hook_name="blocks.2.hook_resid_pre")
    [written] = export_directions(llama, one, "llama.cpp", tmp_path)
    read = import_direction(written.files[0], "llama.cpp", llama)
    assert read.hook_name == "blocks.1.hook_resid_post"


def test_what_has_no_place_is_told_and_refused(llama, plain, tmp_path):
    for hook_name, why in (
        ("blocks.0.hook_resid_post", "the output of block 0"),
        ("blocks.0.hook_resid_pre", "before the first block"),
        ("blocks.1.hook_mlp_out", "is no block's output"),
    ):
        with pytest.raises(InputError, match=f"can say nothing of 'left'.*{why}"):
            export_directions(
                llama, plain(hook_name=hook_name), "llama.cpp", tmp_path, allow_loss=True
            )
    both = [plain(0), plain(1, seed=1)]
    with pytest.raises(InputError, match="cannot say all"):
        export_directions(llama, both, "llama.cpp", tmp_path)
    [written] = export_directions(llama, both, "llama.cpp", tmp_path, allow_loss=True)
    assert [loss.what for loss in written.losses] == ["block 0"]
    [(site, vector)] = READERS["llama.cpp"](written.files[0]).items()
    assert site == "blocks.1.hook_resid_post"
    # What is left out is no part of the norm either.
    assert written.norm == pytest.approx(np.linalg.norm(vector), rel=1e-6)
    # A format that names hooks has a place for all of them.
    named = [plain(hook_name="blocks.1.hook_mlp_out", norm=3.0), plain(0, norm=4.0)]
    [written] = export_directions(llama, named, "transformer-lens", tmp_path)
    assert not written.losses
    assert written.norm == pytest.approx(5.0, rel=1e-6)


def test_edits_that_depend_on_the_text_are_refused(llama, random_sae, tmp_path):
    clamped = Direction(
        "left",
        "blocks.1.hook_resid_post",
        EditLatents(random_sae(), torch.tensor([1]), [2.0], "clamp"),
        positions="every",
    )
    for to in ("lm-eval", "neuronpedia"):
        with pytest.raises(InputError, match=r"what clamp writes .* depends on the text"):
            export_directions(llama, clamped, to, tmp_path, allow_loss=True)
    # Where Neuronpedia has pages of the latents, they can be listed whatever is done to them.
    clamped.edit.sae.cfg.metadata.neuronpedia_id = "tiny/1-res"
    [written] = export_directions(llama, clamped, "neuronpedia", tmp_path, allow_loss=True)
    assert [path.name for path in written.files] == ["left.list.json", "left.links.txt"]


def test_latents_are_written_as_their_vector(llama, random_sae, tmp_path):
    edit = EditLatents(random_sae(), torch.tensor([1, 4]), [2.0, -1.0])
    one = Direction("left", "blocks.1.hook_resid_post", edit, "every", coefficient=0.5)
    [written] = export_directions(llama, one, "aisteer360", tmp_path)
    [vector] = READERS["aisteer360"](written.files[0]).values()
    assert torch.allclose(torch.from_numpy(vector), 0.5 * edit.constant, atol=1e-6)


def test_a_fitted_readout_stays_behind_and_that_is_told(llama, plain, tmp_path):
    readout = FittedReadout(ReadoutConfig(), np.array([1.0, 0.1, 0.2]), np.array([0.5, 0.0, 0.1]))
    one = plain(readout=readout)
    with pytest.raises(InputError, match="the fitted readout"):
        export_directions(llama, one, "repeng", tmp_path)
    [written] = export_directions(llama, one, "repeng", tmp_path, allow_loss=True)
    assert [loss.what for loss in written.losses] == ["readout"]
    assert written.refit is None


def test_a_gate_stays_behind_and_the_strength_is_carried_over(llama, plain, tmp_path):
    gate = Gate("blocks.0.hook_resid_post", torch.zeros(D_MODEL), bias=0.5)
    gated, half = plain(gate=gate, norm=4.0), plain(norm=2.0)
    [written] = export_directions(llama, gated, "repeng", tmp_path, allow_loss=True)
    assert [loss.what for loss in written.losses] == ["gate"]
    # This gate lets half of the vector through whatever the item.
    assert written.norm == pytest.approx(2.0, rel=0.05)
    base = float(kl_to_base(branch(llama, NEUTRAL_PROMPTS, [half])))
    assert written.refit.kl_before == pytest.approx(base, rel=1e-3)


def test_bad_calls_are_refused(llama, plain, tmp_path):
    with pytest.raises(InputError, match=r"unknown format 'lama.cpp': did you mean 'llama.cpp'"):
        export_directions(llama, plain(), "lama.cpp", tmp_path)
    with pytest.raises(InputError, match="no directions"):
        export_directions(llama, [], "repeng", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export_directions(llama, plain(), "repeng", tmp_path / "file")


def test_names_of_files_are_plain_and_told_apart():
    assert file_stems(["a/b", "a b", "../..", "é", "A-B", "x" * 99]) == [
        "a-b",
        "a-b-2",
        "perspective",
        "perspective-2",
        "A-B-3",
        "x" * 60,
    ]
    assert D_MODEL
