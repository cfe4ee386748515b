import json
import shutil
from pathlib import Path

import pytest
from chat_server import by_letters, refusing, serving
from command_line import refused

from saepd.cli.label import _sentence
from saepd.features.index.given_labels import Detection

TEXTS = [f"the {word} of {n} trees, and then {word}." for n in range(40) for word in ("bus", "sea")]
KEY = "SAEPD_ENDPOINT_KEY"


def answer(prompt):
    """Of half of the latents something else, so that there is another label to compare with."""
    if "Label: " in prompt:
        return "1, 2, 3"
    return f"about {by_letters(prompt)}<script>alert(1)</script>"


@pytest.fixture(scope="module")
def asked(files, tmp_path_factory):
    """Model and SAE, with an index in the SAE's own folder."""
    from saepd.features.index.build import build_index
    from saepd.models.load import load_model
    from saepd.saes.load import load_sae

    sae = Path(shutil.copytree(files.sae, tmp_path_factory.mktemp("label") / "sae"))
    model = load_model(files.model, device="cpu")
    build_index(model, load_sae(sae, model=model), TEXTS, sae / "index")
    return ["--model", files.model, "--sae", sae, "--device", "cpu"]


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(answer) as server:
        yield server


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_go_from_the_endpoint_to_where_labels_are_shown(run, asked, chat, tmp_path):
    out, index = tmp_path / "labels.jsonl", tmp_path / "labelled"
    named = ("--endpoint", chat.url, "--endpoint-model", "some-model")
    latents = ("--latents", 3, 5, 8, 9, 3)
    done = run("label", *named, *latents, "--out", out, *asked)
    assert done.code == 0, done.err
    assert [row["index"] for row in rows_of(out)] == ["3", "5", "8", "9"]
    assert "4 of 4 latents labelled" in done.out
    assert {request["model"] for request in chat.requests} == {"some-model"}
    n_asked = len(chat.requests)
    again = run("label", *named, *latents, "--out", out, "--json", *asked)
    assert json.loads(again.out) == rows_of(out)
    assert len(chat.requests) == n_asked
    # The shown labels are kept beside a copy of the SAE's own index, which is left as it is.
    shown = run("index", "--labels", out, "--out", index, *asked)
    assert shown.code == 0, shown.err
    assert not (Path(asked[3]) / "index" / "labels.json").exists()
    page = run("search", "--latent", 5, "--index", index)
    label = rows_of(out)[1]["description"]
    assert f"says: {label}" in page.out
    assert "\nsome-model" in page.out
    found = run("search", label.split("<")[0], "--index", index, "--json")
    assert any(one["given"] for one in json.loads(found.out))
    again = run("index", "--labels", out, "--out", index, *asked)
    assert again.code == 0, again.err


def test_a_dry_run_sends_and_writes_nothing(run, asked, chat, tmp_path):
    out = tmp_path / "labels.jsonl"
    named = ("--endpoint", chat.url, "--endpoint-model", "some-model")
    latents = ("--latents", 3, 5)
    done = run("label", *named, *latents, "--out", out, "--dry-run", *asked)
    assert done.code == 0, done.err
    assert chat.headers == []
    assert not out.exists()
    said, _, first = done.out.partition("The first:\n")
    assert run("label", *named, *latents, "--out", out, *asked).code == 0
    assert said.startswith(f"{len(chat.requests)} requests with about ")
    assert json.loads(first) == chat.requests[0]
    left = run("label", *named, *latents, "--out", out, "--dry-run", *asked)
    assert left.out.startswith("0 requests")
    # It needs no endpoint.
    assert run("label", *latents, "--out", tmp_path / "x", "--dry-run", *asked).code == 0


def test_what_was_finished_is_kept_where_the_endpoint_refuses(
    run, asked, chat, tmp_path, monkeypatch
):
    monkeypatch.setenv(KEY, "sk-of-nobody")
    out = tmp_path / "labels.jsonl"
    chat.faults = [None, refusing(429, Retry_After=0), None, refusing(401, "no sk-of-nobody")]
    named = ("--endpoint", chat.url, "--endpoint-model", "m")
    command = ("label", *named, "--latents", 3, 5, 8, 9, "--out", out)
    done = run(*command, *asked)
    # A progress bar has been there before.
    assert (done.code, done.out) == (2, "")
    assert "answers 401 ('no ...')" in done.err.splitlines()[-1]
    assert len(rows_of(out)) == 2
    assert run(*command, *asked).code == 0
    assert len(rows_of(out)) == 4
    assert "sk-of-nobody" not in out.read_text() + done.err


def test_what_is_wrong_is_said_before_the_model_is_loaded(run, asked, tmp_path):
    out = ("--out", tmp_path / "x")
    none = ["--model", "none", *asked[2:]]
    url = ("--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m")
    refused(run("label", *out, *none), "nothing is sent unless")
    refused(run("label", *out, "--endpoint", "x", *none), "no URL")
    refused(run("label", *out, *url, "--top", 0, *none), "at least 1")
    refused(run("label", "--out", tmp_path, *url, *none), "is a folder")
    refused(run("label", *out, *url, "--index", tmp_path, *none), "holds no index")


def scores(gains):
    return [Detection(0.5 + g, 0.3, 0.9, 0.5, 0.3, 0.7, 0.01 if g else 1, 16, 0) for g in gains]


def test_labels_that_are_no_better_than_others_are_said_to_be():
    rows = [{"description": "x"}] * 9 + [{"description": ""}]
    said = _sentence(rows, scores([0.25] * 4 + [0.3125] * 4))
    assert said.startswith(
        "9 of 10 latents labelled, 8 of the labels scored; balanced accuracy 0.78"
    )
    assert "+0.28 [+0.2" in said
    assert said.endswith("to the label of another latent; 8 labels are better each by itself")
    for nothing in ([0.0] * 8, [0.1, -0.1] * 4, [-0.2] * 8):
        assert "latent: no better than the label of another latent;" in _sentence(
            rows, scores(nothing)
        )
    for few in ([], [0.4]):
        assert "too few to say" in _sentence(rows, scores(few))


def test_labels_without_texts_need_an_index_or_an_sae_that_has_one(run, files, asked, tmp_path):
    from tiny import save_tiny_sae

    refused(run("index", "--out", tmp_path / "x", *asked), "there is nothing to read")
    labels = tmp_path / "labels.jsonl"
    labels.write_text("{}\n")
    command = ("index", "--labels", labels, "--out", tmp_path / "x")
    refused(run(*command, *asked), "does not say which weights")
    assert not (tmp_path / "x").exists()
    sae = save_tiny_sae(tmp_path / "sae")
    refused(run(*command, "--model", files.model, "--sae", sae), "holds an index")
