import gzip
import json
import shutil

import pytest

from saepd.common.errors import InputError
from saepd.features.index.build import build_index
from saepd.features.index.given_labels import LABELS, kept_labels, read_labels, write_labels
from saepd.features.index.latent_page import GivenLabel
from saepd.features.index.reading import load_index
from saepd.features.index.search import search
from saepd.saes.load import sae_fingerprint

PAGE = "tiny/1-res"


@pytest.fixture
def known_sae(tiny_topk):
    """The SAE, as long as its configuration says what it is called on Neuronpedia."""
    tiny_topk.cfg.metadata.neuronpedia_id = PAGE
    yield tiny_topk
    del tiny_topk.cfg.metadata.neuronpedia_id


def row(index, description, by="gpt-4o-mini", layer="1-res"):
    return {
        "modelId": "tiny",
        "layer": layer,
        "index": str(index),
        "description": description,
        "typeName": "oai_token-act-pair",
        "explanationModelName": by,
    }


def lines(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def test_labels_are_read_from_lines_gzipped_lines_and_lists(known_sae, tmp_path):
    rows = [row(3, " the sea "), row(5, "zebras"), row(3, "the sea"), row(3, "ships", "other"),
            row(7, "")]  # fmt: skip
    found = read_labels([lines(tmp_path / "a.jsonl", *rows)], known_sae)
    assert found == {
        3: [
            GivenLabel("the sea", f"Neuronpedia {PAGE}, gpt-4o-mini"),
            GivenLabel("ships", f"Neuronpedia {PAGE}, other"),
        ],
        5: [GivenLabel("zebras", f"Neuronpedia {PAGE}, gpt-4o-mini")],
    }
    packed, listed = tmp_path / "b.jsonl.gz", tmp_path / "c.json"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    listed.write_text(json.dumps(rows))
    assert read_labels([packed], known_sae) == read_labels([listed, packed], known_sae) == found


def test_labels_stand_beside_the_computed_ones(llama, known_sae, texts, config, index, tmp_path):
    folder = shutil.copytree(index.folder, tmp_path / "x")
    plain = load_index(folder, known_sae).page(3)
    file = lines(tmp_path / "labels.jsonl", row(3, "<script>zebras</script>"))
    again = build_index(llama, known_sae, texts, folder, config, labels=[file])
    page = again.page(3)
    given = GivenLabel("<script>zebras</script>", f"Neuronpedia {PAGE}, gpt-4o-mini")
    assert page.given == (given,)
    assert page._replace(given=()) == plain
    assert again.page(4).given == ()
    html = page._repr_html_()
    assert f"Neuronpedia {PAGE}, gpt-4o-mini says: &lt;script&gt;zebras" in html
    assert plain.label in html
    assert page.to_dict()["given"] == [given._asdict()]
    [best, *_] = found = search("zebra", again)
    assert (best.latent, best.found_in, best.given) == (3, "given", (given,))
    assert best.label == plain.label
    assert best.score <= 1
    assert "<script>" not in found._repr_html_()
    assert "label given" in found._repr_html_()
    assert f"zebras</script> (Neuronpedia {PAGE}" in found.frame().given[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no label"),
        ("{", "line 1 is no JSON"),
        ("[1", "is no JSON"),
        ("[1]", "label 1 is a label of 'no SAE'"),
        (json.dumps(row(1, "x", layer="2-res")), "is a label of 'tiny/2-res', and this SAE is"),
        (json.dumps(row(1, None)), "has no text as description"),
        (json.dumps(row(48, "x")), "latent '48': this SAE has latents 0 to 47"),
        (json.dumps(row("one", "x")), "latent 'one'"),
        (json.dumps(row("9" * 5000, "x")), "latent '9999"),
    ],
)
def test_what_is_no_label_of_this_sae_is_refused(known_sae, tmp_path, content, sentence):
    path = tmp_path / "labels.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=sentence) as caught:
        read_labels([path], known_sae)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_refused(known_sae, tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 99)[:20])
    for name in ("none.jsonl", "cut.gz"):
        with pytest.raises(InputError, match="not readable as labels"):
            read_labels([tmp_path / name], known_sae)


def test_what_would_steer_a_terminal_or_stand_in_no_file_is_left_out(known_sae, tmp_path):
    hostile = "the \x1b[2Jsea\n and\ud800\tships\x07"
    file = lines(tmp_path / "labels.jsonl", row(3, hostile, by="x\x1b]0;y\x07"))
    found = read_labels([file], known_sae)
    assert found == {3: [GivenLabel("the [2Jsea and ships", f"Neuronpedia {PAGE}, x]0;y")]}
    write_labels(tmp_path, found)
    assert kept_labels(tmp_path) == {3: tuple(found[3])}


SCORE = {
    "explanationScoreTypeName": "detection",
    "value": 0.75,
    "low": 0.5,
    "high": 0.9,
    "null": 0.5,
    "null_low": 0.3,
    "null_high": 0.7,
    "p": 0.2,
    "n": 16,
    "null_of": 3,
}


def test_labels_that_say_which_weights_they_are_of_need_no_name(tiny_topk, tmp_path):
    own = row(3, "the sea", by="some-model") | {"sae": sae_fingerprint(tiny_topk)}
    scored = own | {"index": "4", "scores": [{"explanationScoreTypeName": "other"}, SCORE]}
    surer = own | {"index": "5", "scores": [SCORE | {"p": 0.01}]}
    found = read_labels([lines(tmp_path / "x.jsonl", own, scored, surer)], tiny_topk)
    assert found[3] == [GivenLabel("the sea", "some-model, not scored")]
    said = "some-model, balanced accuracy 0.75 [0.50, 0.90] on 16 held-out excerpts; 0.50 under "
    assert found[4][0].source.startswith(said)
    assert found[4][0].source.endswith("no better as far as this can tell")
    assert found[5][0].source.endswith("under another latent's label")


@pytest.mark.parametrize(
    "wrong",
    [{"value": 1.5}, {"value": float("nan")}, {"low": "x"}, {"n": 0}, {"n": "16"}, {"p": None}],
)
def test_a_score_that_cannot_be_one_is_refused(tiny_topk, tmp_path, wrong):
    own = row(3, "x") | {"sae": sae_fingerprint(tiny_topk), "scores": [SCORE | wrong]}
    with pytest.raises(InputError, match="line 1 has a score that cannot be read"):
        read_labels([lines(tmp_path / "x.jsonl", own)], tiny_topk)
    for scores in (3, [3], ["x"]):
        with pytest.raises(InputError, match="line 1 has a score that cannot be read"):
            read_labels([lines(tmp_path / "x.jsonl", own | {"scores": scores})], tiny_topk)


def test_labels_need_an_sae_that_says_what_it_is_called(llama, tiny_topk, texts, config, tmp_path):
    file = lines(tmp_path / "labels.jsonl", row(1, "x"))
    with pytest.raises(InputError, match="no neuronpedia_id"):
        build_index(llama, tiny_topk, texts, tmp_path / "x", config, labels=[file])
    assert not (tmp_path / "x").exists()


def test_damaged_labels_beside_an_index_are_said(index, tmp_path):
    folder = shutil.copytree(index.folder, tmp_path / "x")
    for content in ("{", "[]", '{"a": [["x", "y"]]}', '{"1": [["x"]]}', '{"1": 3}'):
        (folder / LABELS).write_text(content)
        with pytest.raises(InputError, match="not readable as labels"):
            load_index(folder).page(1)
