import json

import pytest
from command_line import LENIENT, OPTIONS, feedback_row, refused, write_rows
from safetensors.torch import load_file
from tiny import save_tiny_sae

from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE
from saepd.directions.lineage import read_lineage


def test_fit_writes_a_direction_for_each_perspective(run, files, where, tmp_path):
    out = tmp_path / "steering"
    done = run("fit", "--feedback", files.feedback, "--out", out, "--json", *where, *LENIENT)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["out"] == str(out)
    assert [d["perspective"] for d in found["directions"]] == ["left", "right"]
    assert [d["n_feedback"] for d in found["directions"]] == [8, 8]
    assert {d["n_latents"] for d in found["directions"]} == {4}
    assert found["overlap"].keys() == {"left / right"}
    assert found["overlap"]["left / right"].keys() == {"same", "opposite"}
    assert all(d["n_by_chance"] >= 0 for d in found["directions"])
    assert all(0 <= d["lowest_stability"] <= 1 for d in found["directions"])
    story = json.loads((out / CONFIG_FILE).read_text())
    assert [d["perspective"] for d in story["directions"]] == ["left", "right"]
    assert story["directions"][0]["lineage"]["model"] == "model"
    assert load_file(out / WEIGHTS_FILE)["0.latents"].shape == (4,)
    assert sorted(p.name for p in out.iterdir()) == sorted([CONFIG_FILE, WEIGHTS_FILE])


def test_the_table_of_directions_fits_a_narrow_terminal(run, files, where, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = run("fit", "--feedback", files.feedback, "--out", tmp_path, *where, *LENIENT)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for heading in ("perspective", "rows", "latents", "stability", "chance", "strength"):
        assert heading in done.out
    # Nothing is cut off: every line of the table ends in its border.
    assert all(line.endswith(("│", "┃", "┐", "┓", "┩", "┤", "┘")) for line in boxed(done.out))


def boxed(text):
    return [line for line in text.splitlines() if line[:1] in set("┏┃┡│└")]


def test_fit_draws_as_much_feedback_as_it_is_told(run, files, where, tmp_path):
    done = run(
        *("fit", "--feedback", files.feedback, "--out", tmp_path, "--json", "--n-feedback", 3),
        *(*where, *LENIENT, "--coefficient", 2.5, "--positions", "last(2)"),
    )
    directions = json.loads(done.out)["directions"]
    assert [d["n_feedback"] for d in directions] == [3, 3]
    assert {(d["coefficient"], d["positions"]) for d in directions} == {(2.5, "last(2)")}


def test_fit_writes_at_several_sites_and_answer_reads_them(run, files, where, tmp_path):
    also = save_tiny_sae(tmp_path / "above", hook_name="blocks.2.hook_resid_post")
    out = tmp_path / "steering"
    given = ("--anyway", "--gate", "never", "--n-folds", 2, "--sites", "all", "--json")
    done = run("fit", "--feedback", files.feedback, "--also", also, "--out", out, *given, *where)
    assert done.code == 0, done.err
    sites = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    directions = json.loads(done.out)["directions"]
    assert [d["hook_names"] for d in directions] == [sites, sites]
    asked = ("answer", "So?", "--options", "Yes", "No", "--steering", out, "--json")
    done = run(*asked, "--device", "cpu")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["branches"]) == ["base", "left", "right"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--method", "differences"), "--also is for directions that are learned alone"),
        (("--like", "known"), "--also is for directions that are learned alone"),
    ],
)
def test_several_sites_are_for_what_is_learned(run, files, where, tmp_path, given, said):
    asked = ("fit", "--feedback", files.feedback, "--also", files.sae, "--out", tmp_path / "new")
    refused(run(*asked, *given, *where), said)
    assert not (tmp_path / "new").exists()


def test_two_saes_of_one_site_are_refused(run, files, where, tmp_path):
    asked = ("fit", "--feedback", files.feedback, "--also", files.sae, "--out", tmp_path / "new")
    asked = (*asked, "--n-folds", 2)
    refused(run(*asked, *where), "two SAEs are of the site blocks.1.hook_resid_post")


BAD = {
    2: ('{"id": "half", "perspective": ', "row", "not JSON"),
    4: (json.dumps(feedback_row(1, "left", answer="Maybe")), "answer", "'Maybe' is not an option"),
    5: (json.dumps(feedback_row(2, "left", opinion="x")), "opinion", "no such field"),
    7: (json.dumps(feedback_row(3, "")), "perspective", "empty"),
    8: (json.dumps(feedback_row(0, "left")), "id", "used by an earlier row"),
}


@pytest.fixture
def mixed(tmp_path):
    """Feedback in which five rows are wrong, each in its own way; eight are good."""
    good = iter([json.dumps(feedback_row(i, p)) for i in range(4) for p in ("left", "right")])
    lines = [BAD[n][0] if n in BAD else next(good) for n in range(1, 14)]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_bad_rows_are_reported_at_once_and_nothing_is_written(run, where, mixed, tmp_path):
    out = tmp_path / "steering"
    done = run("fit", "--feedback", mixed, "--out", out, *where, *LENIENT)
    assert (done.code, done.out) == (2, "")
    first, *lines = done.err.splitlines()
    assert first == f"saepd fit: {mixed}: 5 bad rows"
    assert len(lines) == len(BAD)
    for line, (number, (_, field, message)) in zip(lines, BAD.items(), strict=True):
        assert line.startswith(f"{mixed}, line {number}, {field}: ")
        assert message in line
    assert not out.exists()


def test_bad_rows_can_be_left_out(run, where, mixed, tmp_path):
    out = tmp_path / "steering"
    done = run(
        "fit", "--feedback", mixed, "--out", out, "--skip-bad", "--json", *where, *LENIENT
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"{mixed}: went on without 5 bad rows" in done.err
    assert [d["n_feedback"] for d in json.loads(done.out)["directions"]] == [4, 4]
    assert (out / WEIGHTS_FILE).is_file()


def test_fit_learns_and_says_whether_steering_helps(run, files, where, tmp_path):
    out = tmp_path / "steering"
    rows = [
        feedback_row(i, p, prompt=f"Question {i}?", item=f"q{i}")
        for p in ("left", "right")
        for i in range(8)
    ]
    feedback = write_rows(tmp_path / "eight.jsonl", rows)
    learn = ("fit", "--feedback", feedback, "--out", out, "--n-latents", 4, *where)
    learn += ("--gate", "never", "--own-readout", 0.1)
    done = run(*learn, "--anyway", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [d["perspective"] for d in found["directions"]] == ["left", "right"]
    assert found["n_answers"] == {"left": 8, "right": 8}
    assert found["n_latents"] == 4
    assert read_lineage(out).verdict["sentence"] == found["sentence"]
    asked = ("answer", "Question 1?", "--options", *OPTIONS, "--steering", out, "--json", *where)
    answers = json.loads(run(*asked).out)["branches"]
    # Of each question the two said the opposite.
    said = rows[1]["answer"]
    assert answers["left"][OPTIONS.index(said)] > answers["right"][OPTIONS.index(said)]
    new = [row | {"perspective": "new", "id": f"new {row['id']}"} for row in rows[:8]]
    ten = write_rows(tmp_path / "ten.jsonl", new)
    like = ("fit", "--feedback", ten, "--like", out, "--out", tmp_path / "new")
    mixed = run(*like, "--json", *where)
    assert mixed.code == 0, mixed.err
    assert set(json.loads(mixed.out)["weights"]) == {"left", "right"}
    assert read_lineage(tmp_path / "new").perspectives == ("new",)
    refused(
        run(*like, "--n-latents", 2, *where), "--like mixes directions that were fitted already"
    )
    shown = run(*learn)
    assert "for comparison:" in shown.out.lower()
    assert "beside the readout alone" in " ".join(shown.out.split())
    refused(run(*learn, "--k", 3), "learning chooses latents itself: add --method differences")
    other = ("fit", "--feedback", feedback, "--out", out, "--method", "differences", *where)
    refused(run(*other, "--anyway"), "--method differences learns nothing")
    few = ("fit", "--feedback", files.feedback, "--out", out, *where)
    refused(run(*few), "at least 5 questions, not on 4")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, "at least 5 questions, not on 2"), ({"options": [], "answer": "Why?"}, "no options")],
)
def test_what_nothing_can_be_learned_from_is_said_before_a_model_is_loaded(
    run, tmp_path, changes, said
):
    rows = [feedback_row(i, "left", item=f"{i}", prompt=f"{i % 2}?", **changes) for i in range(8)]
    feedback = write_rows(tmp_path / "f.jsonl", rows)
    given = ("--feedback", feedback, "--out", tmp_path / "o", "--model", tmp_path / "no_model")
    refused(run("fit", *given), said)


def test_a_model_of_ones_own_needs_an_sae_of_its_own(run, files, tmp_path):
    fit = ("fit", "--method", "differences", "--feedback", files.feedback, "--model", files.model)
    done = run(*fit, "--out", tmp_path / "out")
    refused(done, "a model of your own needs an SAE of its own")


@pytest.mark.parametrize("damage", ["another width", "truncated", "another site", "another model"])
def test_an_sae_that_does_not_fit_is_refused(run, files, tmp_path, damage):
    settings = {
        "another width": {"d_in": 48},
        "truncated": {},
        "another site": {"hook_name": "blocks.9.hook_resid_post"},
        "another model": {"model_name": "somebody/else"},
    }
    message = {
        "another width": "expects vectors of width 48, but blocks.1.hook_resid_post of model has",
        "truncated": "cannot load the SAE in",
        "another site": "blocks.9.hook_resid_post, which model does not have",
        "another model": "made for somebody/else, but the model is model",
    }
    folder = save_tiny_sae(tmp_path / "sae", **settings[damage])
    if damage == "truncated":
        weights = folder / "sae_weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    out = tmp_path / "out"
    done = run(
        *("fit", "--feedback", files.feedback, "--out", out),
        *("--model", files.model, "--sae", folder, *LENIENT),
    )
    refused(done, message[damage])
    assert not out.exists()
