"""Models, dictionaries and steering folders by their hub ids: from a hub on loopback, or without.

One process meets the hub in every state; each test looks at one of its steps.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import serving
from safetensors.torch import save_file
from tiny import D_MODEL, save_tiny_model, save_tiny_sae

import saepd
from saepd.directions.direction import Direction

DRIVER = Path(__file__).parent / "on_the_hub.py"
AT_ONCE = 5.0
CUT = "somebody/cut/model.safetensors"
GEMMA_ID = "layer_1/width_16k/average_l0_102"
TRANSCODER = "layer_12_width_16k_l0_big_affine"
TRANSCODER_SAE = ["gemma-scope-2-270m-it-transcoders", f"transcoder/{TRANSCODER}"]
OLD_ID = "blocks.1.hook_resid_pre"


def spread(folder):
    model = saepd.load_model(folder, device="cpu")
    return float(model.original_model(torch.arange(5).unsqueeze(0)).logits.std())


def old_sae(folder):
    """As releases before SAELens 6 were saved: everything beside each other, no metadata."""
    save_tiny_sae(folder, hook_name=OLD_ID)
    old = {
        "model_name": "gpt2-small",
        "hook_point": OLD_ID,
        "hook_point_layer": 1,
        "d_in": D_MODEL,
        "d_sae": 2 * D_MODEL,
        "dtype": "torch.float32",
        "device": "cpu",
        "prepend_bos": True,
        "context_size": 128,
    }
    (folder / "cfg.json").write_text(json.dumps(old))
    save_file({"sparsity": torch.zeros(2 * D_MODEL)}, folder / "sparsity.safetensors")


def jumprelu_sae(folder):
    """As Gemma Scope was published: numpy arrays, and a configuration in their path alone."""
    folder.mkdir(parents=True)
    width, n = 2304, 16384
    shapes = {"W_enc": (width, n), "W_dec": (n, width), "b_enc": n, "b_dec": width, "threshold": n}
    # All zeros, so that little is sent: the width is settled by the path.
    np.savez_compressed(
        folder / "params.npz", **{name: np.zeros(s, np.float32) for name, s in shapes.items()}
    )


def transcoder(folder):
    """As Gemma Scope 2 was published: safetensors, and sites by their names in transformers."""
    folder.mkdir(parents=True)
    n = 2 * D_MODEL
    shapes = {"w_enc": (D_MODEL, n), "w_dec": (n, D_MODEL), "b_enc": n, "b_dec": D_MODEL}
    shapes |= {"threshold": n, "affine_skip_connection": (D_MODEL, D_MODEL)}
    save_file({name: torch.randn(s) for name, s in shapes.items()}, folder / "params.safetensors")
    told = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-270m-it",
        "hf_hook_point_in": "model.layers.12.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.12.post_feedforward_layernorm.output",
        "affine_connection": True,
    }
    (folder / "config.json").write_text(json.dumps(told))


def steering_folder(folder, model_folder, norm):
    model = saepd.load_model(model_folder, device="cpu")
    vector = torch.full((D_MODEL,), norm / D_MODEL**0.5)
    direction = Direction("north", "blocks.1.hook_resid_post", saepd.AddVector(vector))
    # What was loaded from a folder names that folder, which nobody else has.
    model.cfg.model_name = "somebody/tiny"
    saepd.save_to_disk([direction], folder, model)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """Repositories in their true layouts."""
    root = tmp_path_factory.mktemp("hub")
    tiny = root / "somebody" / "tiny"
    save_tiny_model("llama", tiny / "main")
    save_tiny_model("llama", tiny / "v2", seed=2)
    save_tiny_model("llama", root / "somebody" / "cut" / "main", seed=3)
    save_tiny_model("llama", root / "somebody" / "broken" / "main", seed=4)
    sharded = root / "somebody" / "sharded" / "main"
    shutil.copytree(tiny / "main", sharded)
    import transformers

    whole = transformers.AutoModelForCausalLM.from_pretrained(sharded)
    (sharded / "model.safetensors").unlink()
    whole.save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    old_sae(root / "jbloom" / "GPT2-Small-SAEs-Reformatted" / "main" / OLD_ID)
    jumprelu_sae(root / "google" / "gemma-scope-2b-pt-res" / "main" / GEMMA_ID)
    transcoder(root / "google" / "gemma-scope-2-270m-it" / "main" / "transcoder" / TRANSCODER)
    save_tiny_sae(root / "somebody" / "saes" / "main" / "site", "topk")
    steering_folder(root / "somebody" / "steering" / "main", tiny / "main", 1.0)
    steering_folder(root / "somebody" / "steering" / "v2", tiny / "main", 2.0)
    return root


def in_a_process(steps, endpoint, home):
    given = [[name, *rest, {}] if len(rest) == 2 else [name, *rest] for name, *rest in steps]
    without = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in without}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, DRIVER],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def online(hub_folder, tmp_path_factory):
    """What came of every step, which requests were made, and where the cache is."""
    home = tmp_path_factory.mktemp("home")
    steps = [
        ("by id", "model", ["somebody/tiny"]),
        ("again", "model", ["somebody/tiny"]),
        ("revision", "model", ["somebody/tiny"], {"revision": "v2"}),
        ("sharded", "model", ["somebody/sharded"]),
        ("cut once", "model", ["somebody/cut"]),
        ("cut always", "model", ["somebody/broken"]),
        ("no model", "model", ["somebody/none"]),
        ("no revision", "model", ["somebody/tiny"], {"revision": "v3"}),
        ("old sae", "sae", ["gpt2-small-res-jb", OLD_ID]),
        ("npz sae", "sae", ["gemma-scope-2b-pt-res", GEMMA_ID]),
        ("transcoder", "sae", TRANSCODER_SAE),
        ("cross-layer", "sae", ["mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0"]),
        ("repository of saes", "sae", ["somebody/saes", "site", "somebody/tiny"]),
        ("no sae", "sae", ["somebody/saes", "nowhere"]),
        ("steering", "steering", ["hf://somebody/steering", "somebody/tiny"]),
        ("steering v2", "steering", ["hf://somebody/steering@v2", "somebody/tiny"]),
        ("no steering", "steering", ["hf://somebody/none", "somebody/tiny"]),
        ("no address", "steering", ["hf://steering", "somebody/tiny"]),
    ]
    with serving(hub_folder) as (endpoint, hub):
        hub.cuts = {CUT: 1, "somebody/broken/model.safetensors": 1000}
        done = in_a_process(steps, endpoint, home)
        done["cuts left"] = hub.cuts[CUT]
    return done, home


@pytest.fixture(scope="module")
def offline(online):
    """The same cache, and a hub that does not answer."""
    _, home = online
    steps = [
        ("model", "model", ["somebody/tiny"]),
        ("sae", "sae", ["gemma-scope-2b-pt-res", GEMMA_ID]),
        ("transcoder", "sae", TRANSCODER_SAE),
        ("other transcoder", "sae", [TRANSCODER_SAE[0], "transcoder/layer_12_width_16k_l0_big"]),
        ("steering", "steering", ["hf://somebody/steering", "somebody/tiny"]),
        ("other model", "model", ["somebody/other"]),
        ("other sae", "sae", ["gemma-scope-2b-pt-res", "layer_2/width_16k/average_l0_141"]),
        ("other steering", "steering", ["hf://somebody/other", "somebody/tiny"]),
    ]
    # Nothing listens on this port.
    return in_a_process(steps, "http://127.0.0.1:9", home)


def test_a_model_by_its_id_is_the_one_in_the_repository(online, hub_folder):
    done, _ = online
    assert done["by id"]["gave"] == pytest.approx(spread(hub_folder / "somebody/tiny/main"))
    assert done["again"] == {**done["by id"], "seconds": done["again"]["seconds"]}


def test_a_revision_is_another_model(online, hub_folder):
    done, _ = online
    assert done["revision"]["gave"] == pytest.approx(spread(hub_folder / "somebody/tiny/v2"))
    assert done["revision"]["gave"] != pytest.approx(done["by id"]["gave"], abs=1e-3)


def test_shards_are_one_model(online):
    done, _ = online
    assert done["sharded"]["gave"] == pytest.approx(done["by id"]["gave"])


def test_an_interrupted_download_goes_on(online, hub_folder):
    done, _ = online
    assert done["cuts left"] == 0
    assert done["cut once"]["gave"] == pytest.approx(spread(hub_folder / "somebody/cut/main"))


def test_a_download_that_never_ends_well_is_one_sentence(online):
    # huggingface_hub tries again five times, a second apart.
    done, _ = online
    assert "cannot load the model 'somebody/broken'" in done["cut always"]["refused"]
    assert "\n" not in done["cut always"]["refused"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("no model", "cannot load the model 'somebody/none'"),
        ("no revision", "cannot load the model 'somebody/tiny'"),
        ("no sae", "cannot load the SAE 'nowhere' of release 'somebody/saes'"),
        ("no steering", "cannot load the steering folder 'hf://somebody/none'"),
        ("no address", "is no address on the hub: write hf://user/name"),
        ("cross-layer", "is a cross-layer transcoder, whose latents write to every later block"),
    ],
)
def test_what_is_not_there_is_said_at_once(online, step, said):
    done, _ = online
    assert said in done[step]["refused"]
    assert "\n" not in done[step]["refused"]
    assert done[step]["seconds"] < AT_ONCE


def test_dictionaries_load_in_the_layouts_of_their_releases(online):
    done, _ = online
    assert done["old sae"]["gave"] == ["standard", OLD_ID, 2 * D_MODEL]
    assert done["npz sae"]["gave"] == ["jumprelu", "blocks.1.hook_resid_post", 16384]
    assert done["repository of saes"]["gave"][0] == "topk"


def test_a_transcoder_is_read_where_it_was_trained(online):
    # SAELens calls it hook_mlp_in, by which TransformerLens means the residual before the norm.
    done, _ = online
    expected = ["jumprelu_skip_transcoder", "blocks.12.mlp.hook_in", 2 * D_MODEL]
    assert done["transcoder"]["gave"] == expected


def test_a_steering_folder_is_a_repository_with_revisions(online):
    done, _ = online
    assert done["steering"]["gave"] == [["north"], pytest.approx(1.0)]
    assert done["steering v2"]["gave"] == [["north"], pytest.approx(2.0)]


@pytest.mark.parametrize("step", ["model", "sae", "transcoder", "steering"])
def test_what_was_fetched_once_needs_no_network(online, offline, step):
    done, _ = online
    before = {"model": "by id", "sae": "npz sae"}.get(step, step)
    assert offline[step]["gave"] == done[before]["gave"]


@pytest.mark.parametrize("step", ["other model", "other sae", "other transcoder", "other steering"])
def test_without_a_network_what_is_missing_is_one_sentence_within_seconds(offline, step):
    assert "not in the local cache, and the hub cannot be reached" in offline[step]["refused"]
    assert "\n" not in offline[step]["refused"]
    assert offline[step]["seconds"] < AT_ONCE
