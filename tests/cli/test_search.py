import json

import pytest
from command_line import refused


@pytest.fixture(scope="module")
def folder(files):
    """An index beside the tiny SAE."""
    from pathlib import Path

    from saepd.features.index.build import build_index
    from saepd.models.load import load_model
    from saepd.saes.load import load_sae

    model = load_model(files.model, device="cpu")
    sae = load_sae(files.sae, model=model)
    texts = [f"the {w} of {n} trees, and {w}." for n in range(6) for w in ("bus", "sea")]
    build_index(model, sae, texts, Path(files.sae) / "index")
    return Path(files.sae) / "index"


def test_words_need_no_model(run, files, folder):
    done = run("search", "trees", "--sae", files.sae, "--top", 3)
    assert done.code == 0, done.err
    assert "match 'trees'" in done.out
    found = json.loads(run("search", "trees", "--index", folder, "--json").out)
    assert {"latent", "score", "label", "context"} <= set(found[0])


def test_a_text_is_read_by_the_model(run, where, folder):
    done = run("search", "--text", "A zebra!", "--top", 4, *where)
    assert done.code == 0, done.err
    found = json.loads(run("search", "--text", "A zebra!", "--top", 4, "--json", *where).out)
    assert 0 < len(found) <= 4
    assert all("".join(one["context"]["tokens"]) in "A zebra!" for one in found)


def test_the_page_of_a_latent(run, files, folder):
    found = json.loads(run("search", "--latent", 5, "--sae", files.sae, "--json").out)
    done = run("search", "--latent", 5, "--sae", files.sae)
    assert done.code == 0, done.err
    assert done.out.startswith(f"Latent 5 at blocks.1.hook_resid_post: {found['label']}")
    assert f"fires at {found['n_firings']} of" in done.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one of the three"),
        (["bus", "--latent", 3], "give one of the three"),
        ([""], "holds no words"),
        (["\U0001f68c"], "holds no words"),
        (["عربي"], "no label, context or token"),
        (["x" * 10_000], "10000 characters long"),
        (["--latent", 64], "has latents 0 to 63"),
        (["--latent", -1], "has latents 0 to 63"),
        (["bus", "--top", 0], "at least 1"),
        (["bus", "--against", "x"], "need texts for"),
    ],
)
def test_bad_input_is_one_sentence(run, files, folder, arguments, sentence):
    refused(run("search", *arguments, "--sae", files.sae), sentence)


def test_an_index_of_another_sae_is_refused(run, where, folder, tmp_path):
    from tiny import save_tiny_sae

    other = save_tiny_sae(tmp_path / "other", "topk")
    model = where[where.index("--model") + 1]
    done = run("search", "--text", "x", "--index", folder, "--model", model, "--sae", other)
    refused(done, "index of another SAE")


def test_an_sae_without_an_index_says_how_to_build_one(run, tmp_path):
    from tiny import save_tiny_sae

    done = run("search", "bus", "--sae", save_tiny_sae(tmp_path / "sae"))
    refused(done, "saepd index --out")
