import json
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import D_MODEL, SITE, save_tiny_model, save_tiny_sae

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.lineage import read_lineage
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.models.choice import ModelConfig
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model
from saepd.saes.load import load_sae, sae_fingerprint


@pytest.fixture
def sae(random_sae):
    return random_sae()


@pytest.fixture
def folder(tmp_path, sae, llama):
    clamp = EditLatents(sae, [4, 3], [1.0, 2.0], "clamp")
    directions = [
        Direction("a", SITE, AddVector(torch.ones(D_MODEL))),
        Direction("b", SITE, clamp),
    ]
    save_to_disk(directions, tmp_path / "folder", model=llama)
    return tmp_path / "folder"


def edit_story(folder, change):
    story = json.loads((folder / CONFIG_FILE).read_text())
    change(story)
    (folder / CONFIG_FILE).write_text(json.dumps(story))


# --- how model and SAE were loaded ---


def test_a_folder_says_how_to_load_what_it_needs(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path / "llama"), device="cpu", dtype="bfloat16")
    sae = load_sae(save_tiny_sae(tmp_path / "sae", model_name="other"), model=model, any_model=True)
    save_to_disk(Direction("a", SITE, EditLatents(sae, [0], [1.0])), tmp_path / "out", model)
    found = read_lineage(tmp_path / "out")
    assert (found.perspectives, found.model, found.sae) == (("a",), "llama", f"other/{SITE}")
    assert found.model_fingerprint == weights_fingerprint(model)
    assert found.sae_fingerprint == sae_fingerprint(sae)
    assert found.where == ModelConfig(
        model=str(tmp_path / "llama"), sae=str(tmp_path / "sae"), dtype="bfloat16", any_model=True
    )
    again = load_model(found.where.model, **found.where.model_settings())
    other = load_sae(found.where.sae_source, model=again, any_model=found.where.any_model)
    assert len(load_from_disk(tmp_path / "out", again, other)) == 1


def test_a_folder_whose_sae_was_made_in_memory_cannot_say_how_to_load_it(folder):
    found = read_lineage(folder)
    assert (found.model, found.sae, found.where) == ("llama", f"tiny/{SITE}", None)


@pytest.mark.parametrize(
    ("loading", "where"),
    [
        ({"dtype": "float32", "block": 20}, ModelConfig(block=20)),
        ({"dtype": "float16", "model": "m", "block": 20}, ModelConfig("m", "20", dtype="float16")),
        (
            {"dtype": "float32", "model": "m", "revision": "r", "sae": "s", "sae_id": "i"},
            ModelConfig("m", "s", "i", revision="r"),
        ),
        # Whether a model's own code may run is not for a folder to say.
        ({"dtype": "float32", "block": 10, "trust_remote_code": True}, ModelConfig(block=10)),
        ({"block": 10}, None),
        ({"dtype": "float32"}, None),
    ],
)
def test_every_source_is_told_as_it_was_given(folder, loading, where):
    edit_story(folder, lambda story: story["directions"][0]["lineage"].update(loading=loading))
    assert read_lineage(folder).where == where


@pytest.mark.parametrize("wrong", [{"dtype": "x"}, {"dtype": []}, {"model": 3}, {"block": "x"}])
def test_a_source_that_makes_no_sense_is_refused(folder, wrong):
    loading = {"dtype": "float32", "block": 10, **wrong}
    edit_story(folder, lambda story: story["directions"][0]["lineage"].update(loading=loading))
    with pytest.raises(InputError, match=r"are damaged: steering\.json"):
        read_lineage(folder)


def test_lineage_is_read_without_torch(folder):
    code = (
        "import sys; from saepd.directions.lineage import read_lineage; "
        f"read_lineage({str(folder)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- JSON of every kind in the place of a story ---

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = ("perspective", "hook_name", "mode", "positions", "coefficient", "lineage")
KEYS += ("readout", "gate")
WHOLE = ("format", "sha256", "verdict")


@given(JUNK, st.sampled_from([None, *KEYS, *WHOLE, "model", "sae_fingerprint", "loading"]))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_is_refused_in_a_sentence_or_harmless(llama, sae, folder, junk, key):
    written = (folder / CONFIG_FILE).read_text()
    story = json.loads(written)
    if key in KEYS:
        story["directions"][1][key] = junk
    elif key in WHOLE:
        story[key] = junk
    elif key is None:
        story = junk
    else:
        story["directions"][1]["lineage"][key] = junk
    (folder / CONFIG_FILE).write_text(json.dumps(story))
    try:
        for read in (lambda: load_from_disk(folder, llama, sae), lambda: read_lineage(folder)):
            with suppress(InputError):
                read()
    finally:
        (folder / CONFIG_FILE).write_text(written)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": NaN}', '{"a": "\\ud800"}', '{"format": 1e999}', "9" * 5000],
)
def test_hostile_text_is_refused_in_a_sentence(llama, sae, folder, text):
    (folder / CONFIG_FILE).write_text(text)
    for read in (lambda: load_from_disk(folder, llama, sae), lambda: read_lineage(folder)):
        with pytest.raises(InputError, match="are damaged"):
            read()


@pytest.mark.parametrize("coefficient", ["1e999", "1" + "0" * 400, "true", '"2"'])
def test_a_coefficient_that_is_no_finite_number_is_refused(llama, sae, folder, coefficient):
    text = (folder / CONFIG_FILE).read_text()
    changed = text.replace('"coefficient": 1.0', f'"coefficient": {coefficient}')
    assert changed != text
    (folder / CONFIG_FILE).write_text(changed)
    with pytest.raises(InputError, match="damaged"):
        load_from_disk(folder, llama, sae)
