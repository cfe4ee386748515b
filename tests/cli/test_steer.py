import json

import pytest
import torch
from command_line import refused
from safetensors.torch import save_file
from tiny import D_MODEL, SITE

from saepd.branches.dose import relative_dose
from saepd.branches.neutral import side_effects
from saepd.branches.run import branch
from saepd.branches.writing.compare import compare
from saepd.branches.writing.config import SamplingConfig
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.saving import load_from_disk
from saepd.features.words import latent_words
from saepd.fit.by_hand import steer
from saepd.fit.config import HandConfig
from saepd.models.load import load_model
from saepd.saes.load import load_sae

FEATURES = ("--features", "3=4", "8=-6")
SHORT = ("--style", "plain", "--max-new-tokens", 8)


@pytest.fixture(scope="module")
def model(files):
    return load_model(files.model, device="cpu")


@pytest.fixture(scope="module")
def sae(files, model):
    return load_sae(files.sae, model=model)


def test_steer_shows_what_python_computes(run, where, model, sae):
    done = run("steer", "So what", *FEATURES, "--kl-budget", 0.1, *SHORT, *where, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    direction = steer(model, sae, {3: 4.0, 8: -6.0}, HandConfig(kl_budget=0.1))
    [expected] = compare(model, ["So what"], direction, SamplingConfig(max_new_tokens=8))
    for name, written in (("base", expected.base), ("steered", expected.steered)):
        assert found[name]["text"] == written.text
        assert [t["text"] for t in found[name]["tokens"]] == [s.text for s in written.steps]
        kl = [s.kl[0] for s in written.steps]
        assert [t["kl"] for t in found[name]["tokens"]] == pytest.approx(kl, rel=1e-3, abs=1e-6)
    [written] = found["directions"]
    assert (written["site"], written["positions"]) == (SITE, "answer")
    assert written["coefficient"] == pytest.approx(direction.coefficient)
    assert [(one["latent"], one["value"]) for one in written["latents"]] == [(3, 4.0), (8, -6.0)]
    assert [one["about"] for one in written["latents"]] == latent_words(model, sae, [3, 8])
    assert found["relative_dose"] == pytest.approx(relative_dose(model, direction)[0], rel=1e-4)
    [side] = side_effects(model, [direction])
    assert found["kl_on_neutral_text"] == pytest.approx(side.kl, rel=1e-3)
    assert 0.05 < side.kl <= 0.1


def test_steer_prints_both_texts_plainly_where_nobody_looks(run, where, model, sae):
    done = run("steer", "So what", *FEATURES, *SHORT, *where)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert f"at {SITE}, coefficient 1" in done.out
    assert "that is much: --dose shows" in done.out
    weak = run("steer", "So what", "--features", "3=0.001", *SHORT, *where)
    assert "that is little: --relative-dose 0.2" in weak.out
    assert f"add 8 -6: {latent_words(model, sae, [8])[0]}" in done.out
    direction = steer(model, sae, {3: 4.0, 8: -6.0})
    [expected] = compare(model, ["So what"], direction, SamplingConfig(max_new_tokens=8))
    moved = max(expected.pieces()["base"], key=lambda piece: piece.value)
    assert f"most moved in base: {moved.text!r} {moved.value:.2f}" in done.out


def test_steer_shows_what_strengths_do(run, where):
    asked = ("steer", "So what", *FEATURES, "--dose", "--strengths", "1", "-2", *SHORT, *where)
    found = json.loads(run(*asked, "--json").out)
    assert [point["strength"] for point in found["doses"]] == [0, 1, -2]
    done = run(*asked)
    for point in found["doses"]:
        assert f"[{point['strength']:g}] {point['texts'][0]}" in done.out
        assert f"{point['relative_dose']:.3f}" in done.out
    assert max(map(len, done.out.split("\n")[:12])) <= 80
    assert "nats by which the token after the prompt moves" in done.out
    wanted = run(*asked, "--towards", "then")
    assert "nats of log-likelihood that 'then' gains" in wanted.out


def test_a_direction_by_hand_is_saved_and_steers_like_any_other(run, where, tmp_path, model, sae):
    out = tmp_path / "mine"
    done = run("steer", *FEATURES, "--name", "mine", "--relative-dose", 0.3, "--out", out, *where)
    assert (done.code, done.out) == (0, "")
    [loaded] = load_from_disk(out, model, sae)
    assert loaded.perspective == "mine"
    assert relative_dose(model, loaded) == pytest.approx([0.3], rel=1e-4)
    shared = ("--steering", out, *SHORT, "--per-perspective", "--json")
    written = json.loads(run("generate", "So what", *shared).out)["texts"]
    shown = run("steer", "So what", *FEATURES, "--relative-dose", 0.3, *SHORT, *where, "--json")
    assert json.loads(shown.out)["steered"]["text"] == written["mine"]


def test_latents_and_a_vector_act_together_and_are_saved_as_one_direction(
    run, where, tmp_path, model, sae
):
    path, out = tmp_path / "v.safetensors", tmp_path / "steering"
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    save_file({"v": vector}, path)
    site = "blocks.2.hook_resid_post"
    given = (*FEATURES, "--vector", path, "--site", site, "--out", out, *where)
    done = run("steer", "So what", *given, *SHORT, "--json")
    assert done.code == 0, done.err
    assert [one["site"] for one in json.loads(done.out)["directions"]] == [SITE, site]
    [loaded] = load_from_disk(out, model, sae)
    parts = [steer(model, sae, {3: 4.0, 8: -6.0}), Direction("v", site, AddVector(vector))]
    expected = branch(model, ["So what"], [parts])
    assert torch.equal(branch(model, ["So what"], [loaded]), expected)


def test_a_vector_of_a_file_steers(run, where, tmp_path, model):
    path = tmp_path / "v.safetensors"
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    save_file({"a": vector, "b": -vector}, path)
    site = "blocks.2.hook_resid_pre"
    given = ("--vector", path, "--site", site, *SHORT, *where, "--json")
    found = json.loads(run("steer", "So what", *given, "--tensor", "b").out)
    direction = Direction("v", site, AddVector(-vector))
    [expected] = compare(model, ["So what"], direction, SamplingConfig(max_new_tokens=8))
    assert found["steered"]["text"] == expected.steered.text
    both = json.loads(run("steer", "So what", *given, "--tensor", "b", *FEATURES).out)
    assert [d["site"] for d in both["directions"]] == [SITE, site]
    assert both["steered"]["tokens"] != found["steered"]["tokens"]
    refused(run("steer", "So what", *given), "holds 2 tensors (a, b): name one vector of it")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("So?",), "nothing to steer with"),
        ((*FEATURES,), "no prompt: give one, or a folder"),
        (("So?", "--features", "x=1"), "'x=1' names no latent"),
        (("So?", "--features", "1"), "'1' has no value"),
        (("So?", *FEATURES, "--mode", "ablate"), "has a value, and mode 'ablate'"),
        (("So?", "--vector", "v"), "--vector and --site belong together"),
        (("So?", *FEATURES, "--site", SITE), "--vector and --site belong together"),
        (("So?", *FEATURES, "--tensor", "v"), "--tensor names a vector of a file"),
        (("So?", *FEATURES, "--towards", "v"), "add --dose"),
        (("So?", *FEATURES, "--strength", 2, "--kl-budget", 1), "a strength and a KL budget are"),
        (("So?", *FEATURES, "--out", __file__), "is a file: name a folder"),
        (("So?", *FEATURES, "--dose", "--strengths", "nan"), "a number of strengths is nan"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_anything_is_loaded(run, given, said):
    refused(run("steer", *given, "--model", "no such model", "--sae", "no such sae"), said)


@pytest.mark.parametrize("prompt", ["🙂 so what", "האם זה טוב?", "a\x1b[31mb"])
def test_any_text_is_continued(run, where, prompt):
    done = run("steer", prompt, *FEATURES, *SHORT, *where, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["prompt"] == prompt
    assert "\x1b" not in done.out


def test_what_the_model_or_sae_does_not_have_is_refused(run, where):
    refused(run("steer", "So?", "--features", "99=1", *where), "latent ids must be in 0..63")
    refused(run("steer", "", *FEATURES, *where, "--style", "plain"), "a prompt is empty")
    refused(run("steer", "x" * 10_000, *FEATURES, *where, "--style", "plain"), "shorten it")
    refused(run("steer", "So?", "--features", "15:3=1", *where), "it has 4 blocks")
