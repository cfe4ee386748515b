"""Every format: what is written is what its tool reads, and what is read back is what was there."""

import json

import gguf
import numpy as np
import pytest
import torch

from saepd.common.errors import InputError
from saepd.interchange import config
from saepd.interchange.record import LatentSource, SiteVector, SteeringRecord
from saepd.interchange.registry import READERS, TARGETS

SITES = {1: "blocks.1.hook_resid_post", 2: "blocks.2.hook_resid_post"}


def test_every_format_is_described_and_every_description_is_of_a_format():
    assert [*TARGETS, config.HUB] == list(config.WRITTEN)
    assert list(READERS) == list(config.READ)


@pytest.mark.parametrize("name", [n for n in TARGETS if n in READERS])
def test_what_is_written_is_read_back(record, written, name):
    path = written(TARGETS[name].write, record)
    read = READERS[name](path)
    assert list(read) == list(SITES.values())
    for block, vector in record.by_block().items():
        assert np.array_equal(read[SITES[block]], vector)


@pytest.mark.parametrize("name", ["llama.cpp", "repeng"])
def test_a_control_vector_is_what_the_library_reads(record, written, name):
    reader = gguf.GGUFReader(written(TARGETS[name].write, record))
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert list(found) == ["direction.1", "direction.2"]
    for block, vector in record.by_block().items():
        assert np.array_equal(found[f"direction.{block}"], vector)


def test_llama_cpp_would_reject_a_file_that_names_block_0_and_repeng_would_not(record, written):
    first = SiteVector("blocks.0.hook_out", 0, record.by_block()[1], "every")
    both = SteeringRecord("left", (*record.sites, first), record.model)
    names = {}
    for name in ("llama.cpp", "repeng"):
        reader = gguf.GGUFReader(written(TARGETS[name].write, both))
        names[name] = [tensor.name for tensor in reader.tensors]
    assert names["llama.cpp"] == ["direction.1", "direction.2"]
    assert names["repeng"] == ["direction.0", "direction.1", "direction.2"]


def test_the_harness_finds_its_modules_and_nothing_needs_to_be_unpickled(record, written):
    path = written(TARGETS["lm-eval"].write, record)
    entries = torch.load(path, weights_only=True)
    assert list(entries) == ["layers.1", "layers.2"]
    one = entries["layers.2"]
    assert np.array_equal(one["steering_vector"][0].numpy(), record.by_block()[2])
    assert (one["action"], one["bias"], one["steering_coefficient"]) == ("add", None, 1.0)


def test_hotwire_gets_a_row_for_every_layer(record, written):
    path = written(TARGETS["hotwire"].write, record)
    rows = torch.load(path, weights_only=True)
    assert rows.shape == (4, len(record.by_block()[1]))
    assert not rows[[0, 3]].any()
    assert np.array_equal(rows[1].numpy(), record.by_block()[1])
    request = json.loads(json.loads((path.parent / "left.request.json").read_text())["hotwire"])
    assert request == [{"id": "left", "layer": i, "scale": 1.0} for i in (1, 2)]


def test_specs_in_json_hold_the_vectors(record, written):
    lens = json.loads(written(TARGETS["transformer-lens"].write, record).read_text())
    assert {name: spec["op"] for name, spec in lens.items()} == {
        "blocks.1.hook_resid_post": "add",
        "blocks.2.hook_resid_pre": "add",
        "blocks.2.hook_out": "add",
    }
    [spec] = json.loads(written(TARGETS["interp-engine"].write, record).read_text())
    assert spec["point"] == "resid_post"
    [operation] = spec["layers"]["1"]
    assert (operation["method"], operation["scale"]) == ("additive", 1.0)
    assert np.array_equal(np.float32(operation["vector"]), record.by_block()[1])


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("every", {"prompt": "all", "generation": "all"}),
        ("answer", {"prompt_positions": [-1], "generation": "all"}),
        ("generated", {"generation": "all"}),
        ("last(3)", {"prompt_window": [-3, None]}),
        (
            "prompt",
            {"prompt": "all", "exclude_prompt_positions": [0], "exclude_prompt_tokens": []},
        ),
    ],
)
def test_easysteer_is_told_the_positions(record, written, positions, expected):
    sites = tuple(SiteVector(s.hook_name, s.block, s.vector, positions) for s in record.sites[:2])
    path = written(TARGETS["easysteer"].write, SteeringRecord("left", sites, record.model))
    spec = json.loads((path.parent / "left.json").read_text())
    [vector] = spec["vectors"]
    assert vector["apply"] == expected
    assert (vector["source"], vector["layers"]) == (path.name, [1])
    [tensor] = gguf.GGUFReader(path).tensors
    assert np.array_equal(tensor.data, record.by_block()[1])


def test_easysteer_gets_a_vector_for_each_position_spec(record, written):
    one, other, _ = record.sites
    sites = (one, SiteVector(other.hook_name, 1, other.vector, "answer"))
    path = written(TARGETS["easysteer"].write, SteeringRecord("left", sites, record.model))
    spec = json.loads((path.parent / "left.json").read_text())
    assert [v["source"] for v in spec["vectors"]] == ["left.gguf", "left-2.gguf"]
    [second] = gguf.GGUFReader(path.parent / "left-2.gguf").tensors
    assert np.array_equal(second.data, other.vector)


def test_neuronpedia_gets_vectors_lists_and_links(record, written):
    source = LatentSource((7, 3), (0.5, -2.0), "add", "gemma-2-2b/12-res-16k")
    site = record.sites[0]
    made_of = SiteVector(site.hook_name, 1, site.vector, "every", source)
    path = written(
        TARGETS["neuronpedia"].write, SteeringRecord("left & right", (made_of,), record.model)
    )
    [body] = json.loads(path.read_text())
    assert (body["modelId"], body["layerNumber"]) == ("gemma-2-2b", 1)
    assert body["hookType"] == "hook_resid_post"
    listed = json.loads((path.parent / "left.list.json").read_text())["features"]
    # The latent that is written most comes first.
    assert [f["index"] for f in listed] == [3, 7]
    quick, first, _second = (path.parent / "left.links.txt").read_text().split()
    assert quick.startswith("https://neuronpedia.org/quick-list/?name=left%20%26%20right&features=")
    assert first == "https://neuronpedia.org/gemma-2-2b/12-res-16k/3"


def test_neuronpedia_without_a_page_of_the_sae_gets_the_vector_alone(record, written):
    path = written(TARGETS["neuronpedia"].write, record)
    assert [p.name for p in path.parent.iterdir()] == ["left.vector.json"]


def svec(tmp_path, value):
    path = tmp_path / "v.svec"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_older_files_of_one_row_without_a_list_around_it_are_read(tmp_path):
    path = svec(tmp_path, {"model_type": "llama", "directions": {"2": [1.0, 2]}})
    assert READERS["aisteer360"](path)["blocks.2.hook_resid_post"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100000, "is no JSON"),
        ('{"directions": {"1": [NaN]}}', "NaN is no JSON number"),
        ([], "needs directions by layer"),
        ({"directions": {}}, "needs directions by layer"),
        ({"directions": {"x": [1.0]}}, "layers are numbered"),
        ({"directions": {"²": [1.0]}}, "layers are numbered"),
        ({"directions": {"1": [[1.0], [2.0]]}}, "has 2 rows"),
        ({"directions": {"1": ["a"]}}, "is a list of numbers"),
        ({"directions": {"1": [True]}}, "is a list of numbers"),
        ({"directions": {"1": [10**400]}}, "too large"),
    ],
)
def test_a_damaged_svec_is_refused(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        READERS["aisteer360"](svec(tmp_path, value))
