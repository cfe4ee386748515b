import json

import pytest
from asked import with_readouts
from command_line import OPTIONS, refused, write_rows
from tiny import save_tiny_model, save_tiny_sae

from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.feedback.reading import load_items
from saepd.models.load import load_model
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options
from saepd.saes.load import load_sae


def test_answer_gives_every_branch_and_the_merge(run, where, steering):
    question = ("answer", "So?", "--options", *OPTIONS, "--steering", steering, *where)
    done = run(*question, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["question"], found["options"]) == ("So?", OPTIONS)
    assert list(found["branches"]) == list(found["mass"]) == ["base", "left", "right"]
    for p in (*found["branches"].values(), found["merged"]):
        assert len(p) == 3
        assert sum(p) == pytest.approx(1, abs=1e-5)
    assert found["branches"]["left"] != found["branches"]["right"]
    assert 0 < found["disagreement_nats"] < 1.0987
    mixed = json.loads(run(*question, "--json", "--operator", "mixture").out)
    assert mixed["operator"] == "mixture"
    for i, p in enumerate(mixed["merged"]):
        assert p == pytest.approx(sum(row[i] for row in mixed["branches"].values()) / 3, abs=1e-5)
    table = run(*question).out
    assert all(word in table for word in ("base", "left", "right", "merged (pluralistic)", "nats"))


def test_answer_without_options_is_free_text(run, where, steering):
    done = run(
        "answer", "So?", "--steering", steering, "--max-new-tokens", 8, "--json", *where
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["prompt"] == "A survey asked: So?\nMost people answered:"
    assert found["text"]


def test_one_option_is_no_choice(run, where, steering):
    done = run("answer", "So?", "--options", "Yes", "--steering", steering, *where)
    refused(done, "saepd answer: one option is no choice: give two or more, or none for free text")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--operator", "mixtur"), "unknown merge operator 'mixtur': did you mean 'mixture'?"),
        (("--tau", 0), "tau is 0"),
        (("--temperature", -1), "the temperature is -1"),
        (("--answer-temperature", 0), "the temperature is 0"),
        (("--dtype", "float12"), '"float12" for --dtype. Choose from'),
    ],
)
def test_settings_out_of_range_are_refused(run, where, steering, settings, message):
    asked = ("answer", "So?", "--options", "Yes", "No", "--steering", steering)
    refused(run(*asked, *where, *settings), message)


def test_directions_of_another_model_or_sae_are_refused(run, files, steering, tmp_path):
    other = save_tiny_model("llama", tmp_path / "model", seed=1)
    asked = ("answer", "So?", "--options", "Yes", "No", "--steering", steering)
    done = run(*asked, "--model", other, "--sae", files.sae)
    refused(done, "were made with other weights of this model")
    sae = save_tiny_sae(tmp_path / "sae", "jumprelu")
    refused(run(*asked, "--model", files.model, "--sae", sae), "was made with another SAE")


def test_questions_of_a_file_are_answered_as_they_would_be_alone(run, where, steering, tmp_path):
    rows = [
        {"id": "a", "prompt": "So?", "options": OPTIONS},
        {"id": "free", "prompt": "Why?", "options": []},
        {"id": "b", "prompt": "Is it?", "options": ["Yes", "No"]},
    ]
    items = write_rows(tmp_path / "items.jsonl", rows)
    shared = ("--steering", steering, "--max-new-tokens", 8, *where)
    done = run("answer", "--items", items, *shared, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["id"] for one in found] == ["a", "free", "b"]
    alone = json.loads(run("answer", "So?", "--options", *OPTIONS, *shared, "--json").out)
    assert found[0]["merged"] == pytest.approx(alone["merged"], abs=1e-5)
    assert set(found[0]) == {"id", *alone}
    free = json.loads(run("answer", "Why?", *shared, "--json").out)
    assert found[1]["text"] == free["text"]
    told = run("answer", "--items", items, *shared).out
    assert all(text in told for text in ("So?", "Why?", "Is it?", free["text"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("So?", "--options", "Yes", "Yes"), "'Yes' is there twice: options must differ"),
        (("So?", "--options", "Yes"), "one option is no choice"),
        ((), "no question: give one, or a file of them with --items"),
        (("So?", "--items", "none.jsonl"), "give one question or a file of them"),
        (("--items", "none.jsonl"), "cannot read none.jsonl"),
        (("So?", "--operator", "weighted", "--weights", "1"), "--weights are 1, but there are 3"),
        (("So?", "--strength", "inf"), "the strength is inf"),
    ],
)
def test_what_needs_no_model_is_refused_before_one_is_loaded(run, steering, arguments, message):
    # There is no such model, so this would be the first complaint if one were loaded.
    done = run("answer", *arguments, "--steering", steering, "--model", "./none")
    refused(done, message)
    assert "none:" not in done.err.replace("none.jsonl", "")


def test_every_command_reads_a_folder_as_python_does(run, files, where, steering, items, tmp_path):
    model = load_model(files.model, device="cpu")
    sae = load_sae(files.sae, model=model)
    config = ReadoutConfig(template="Asked: {prompt} Said:")
    loaded = load_from_disk(steering, model, sae)
    folder = tmp_path / "fitted"
    save_to_disk(with_readouts(loaded, config), folder)
    asked = load_items(items).rows
    read = read_options(model, asked, load_from_disk(folder, model, sae))
    expected = [one.log_probs().exp().tolist() for one in read]
    raw = read_options(model, asked, loaded, config)
    assert abs(raw[0].log_probs().exp()[1] - read[0].log_probs().exp()[1]).max() > 1e-2
    shared = ("--steering", folder, *where)
    answered = json.loads(run("answer", "--items", items, *shared, "--json").out)
    out = ("--out", tmp_path / "out", "--json")
    triaged = json.loads(run("triage", "--data", items, *shared, *out).out)
    in_order = {row["id"]: row["branches"] for row in triaged}
    for item, one, p in zip(asked, answered, expected, strict=True):
        for found in (one["branches"], in_order[item.id]):
            assert list(found) == ["base", "left", "right"]
            for name, row in zip(found, p, strict=True):
                assert found[name] == pytest.approx(row, abs=1e-5)
    other = run("answer", "--items", items, *shared, "--template", "{prompt}")
    refused(other, "'left' was fitted with another readout", "read with the same one")
    centred = run("triage", "--data", items, *shared, *out, "--centre")
    refused(centred, "leave out centring")
