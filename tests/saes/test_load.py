from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file, save_file
from tiny import D_MODEL, SITE, save_tiny_model, save_tiny_sae

from saepd.common.errors import InputError
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model
from saepd.saes.fits import (
    _PROBE_TOKENS,
    MIN_EXPLAINED_VARIANCE,
    PROBE_TEXT,
    explained_variance,
)
from saepd.saes.load import load_sae, sae_config, sae_fingerprint, sae_hook_name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "model"))


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
def test_every_architecture_loads_and_fits(model: Any, tmp_path: Path, architecture: str):
    sae = load_sae(save_tiny_sae(tmp_path, architecture, dtype="float16"), model=model)
    assert type(sae).__name__.lower() == f"{architecture}sae"
    assert sae.W_dec.dtype == torch.float32
    assert not sae.training
    assert not any(p.requires_grad for p in sae.parameters())
    assert sae.cfg.metadata.probe_explained_variance == pytest.approx(1, abs=1e-5)
    assert sae_hook_name(sae) == SITE


def test_loads_without_a_model(tmp_path: Path):
    assert load_sae(str(save_tiny_sae(tmp_path))).cfg.d_in == D_MODEL


def test_another_width_is_refused(model: Any, tmp_path: Path):
    with pytest.raises(InputError, match=r"width 48, but blocks\.1\S+ of model has width 32"):
        load_sae(save_tiny_sae(tmp_path, d_in=48), model=model)


def test_missing_site_is_refused(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path, hook_name="blocks.9.hook_resid_post")
    with pytest.raises(InputError, match=r"blocks\.9\S+, which model does not have: it has 4"):
        load_sae(folder, model=model)


def test_unnamed_site_is_refused(model: Any, tmp_path: Path):
    with pytest.raises(InputError, match="names no site"):
        load_sae(save_tiny_sae(tmp_path, hook_name=""), model=model)


def test_another_model_is_refused_unless_allowed(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path, model_name="google/gemma-2-2b")
    with pytest.raises(InputError, match="made for google/gemma-2-2b, but the model is model"):
        load_sae(folder, model=model)
    assert load_sae(folder, model=model, any_model=True).cfg.d_in == D_MODEL


@pytest.mark.parametrize("name", ["Model", "somebody/MODEL", "mo-del"])
def test_spelling_of_the_model_name_does_not_matter(model: Any, tmp_path: Path, name: str):
    load_sae(save_tiny_sae(tmp_path, model_name=name), model=model)


def test_an_sae_that_does_not_reconstruct_is_refused(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_dec"] = weights["W_dec"] * 0
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(InputError, match=f"at least {MIN_EXPLAINED_VARIANCE}"):
        load_sae(folder, model=model)
    with pytest.raises(InputError, match=f"at least {MIN_EXPLAINED_VARIANCE}"):
        load_sae(folder, model=model, any_model=True)


def test_probe_counts_the_positions_that_training_counts(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_dec"] = weights["W_dec"] * 0.8
    save_file(weights, folder / "sae_weights.safetensors")
    sae = load_sae(folder, model=model)
    tokens = torch.tensor([model.tokenizer(PROBE_TEXT).input_ids[:_PROBE_TOKENS]])
    _, cache = model.run_with_cache(tokens)
    x = cache[SITE][0, 1:]
    expected = 1 - (0.2 * x).square().sum() / (x - x.mean(0)).square().sum()
    found = sae.cfg.metadata.probe_explained_variance
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_truncated_weights_are_refused(tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot load the SAE"):
        load_sae(folder)


def test_missing_tensor_is_refused(tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    del weights["b_enc"]
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(InputError, match=r"cannot load the SAE .*Missing key.* \"b_enc\""):
        load_sae(folder)


def test_damaged_numbers_are_named(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_dec"][40, 3] = torch.nan
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(InputError, match=r"hook_resid_post are damaged: W_dec holds infinity or"):
        load_sae(folder, model=model)


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("name", ["sae_weights.pt", "ae.bin", "sae_weights.safetensors"])
def test_pickles_are_refused_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    folder = save_tiny_sae(tmp_path / "sae")
    (folder / "sae_weights.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match=r"pickled|cannot load"):
        load_sae(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "holds no cfg.json"),
        ("{", "not readable JSON"),
        ("[]", "expected a JSON object"),
        ('{"architecture": "mystery"}', "unknown architecture 'mystery'"),
        ('{"architecture": "topk"}', "cannot load the SAE"),
        ('{"metadata": []}', r"metadata is \[\]: it must be a JSON object"),
        ('{"architecture": "batchtopk"}', "batchtopk is only for training: save it with SAELens'"),
    ],
)
def test_unusable_configurations_are_refused(tmp_path: Path, config: str | None, message: str):
    folder = save_tiny_sae(tmp_path)
    (folder / "cfg.json").unlink()
    if config is not None:
        (folder / "cfg.json").write_text(config)
    with pytest.raises(InputError, match=message):
        load_sae(folder)


def test_missing_sources_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="needs a sae_id"):
        load_sae("gpt2-small-res-jb")
    with pytest.raises(InputError, match=r"holds no sae_weights\.safetensors"):
        load_sae(tmp_path)
    with pytest.raises(InputError, match="no SAE is shipped for block 99"):
        load_sae(99)


def test_shipped_saes_are_found_in_a_checkout_or_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import saepd.saes.load

    (tmp_path / "saepd").mkdir()
    monkeypatch.setattr(saepd.saes.load, "__file__", str(tmp_path / "saepd" / "saes" / "load.py"))
    save_tiny_sae(tmp_path / "artifacts" / "saes" / "blocks.15.hook_resid_post", hook_name="beside")
    assert sae_hook_name(load_sae()) == "beside"
    save_tiny_sae(
        tmp_path / "saepd" / "saes_shipped" / "blocks.10.hook_resid_post", hook_name="inside"
    )
    assert sae_hook_name(load_sae(10)) == sae_hook_name(load_sae("10")) == "inside"


def test_fingerprint_follows_the_weights_not_their_storage(tmp_path: Path):
    wide = load_sae(save_tiny_sae(tmp_path / "a"))
    narrow = load_sae(save_tiny_sae(tmp_path / "b", dtype="float16", model_name="other"))
    assert sae_fingerprint(wide) == sae_fingerprint(narrow)
    wide.W_dec.data[0, 0] += 0.01
    assert sae_fingerprint(wide) != sae_fingerprint(narrow)


def test_explained_variance_of_known_reconstructions():
    x = torch.randn(50, 8) * 3 + 5
    assert explained_variance(x, x) == 1
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    half = x.mean(0) + (x - x.mean(0)) / 2
    assert explained_variance(x, half) == pytest.approx(0.75, abs=1e-6)


def test_inference_class_from_a_training_checkpoint(tmp_path: Path):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig, TrainingSAE

    TopKTrainingSAE(TopKTrainingSAEConfig(d_in=8, d_sae=16, k=2)).save_model(tmp_path)
    sae = load_sae(tmp_path)
    assert isinstance(sae, SAE)
    assert not isinstance(sae, TrainingSAE)


# --- what is checked before the weights are loaded ---


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"d_in": 48}, r"width 48, but blocks\.1\S+ of model has width 32"),
        ({"hook_name": "blocks.9.hook_resid_post"}, r"blocks\.9\S+, which model does not have"),
        ({"model_name": "another"}, "was made for another, but the model is model"),
        ({"hook_name": ""}, "names no site"),
    ],
)
def test_what_the_configuration_says_is_checked_first(
    model: Any, tmp_path: Path, settings: dict[str, Any], match: str
):
    folder = save_tiny_sae(tmp_path, **settings)
    (folder / "sae_weights.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=match):
        load_sae(folder, model=model)


def change_config(folder: Path, **settings: Any) -> Path:
    config = json.loads((folder / "cfg.json").read_text())
    metadata = {**config["metadata"], **settings.pop("metadata", {})}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps({**config, "metadata": metadata, **settings}))
    return folder


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"d_sae": "64"}, "d_sae is '64': it must be a whole number, 1 or more"),
        ({"d_in": 32.0}, r"d_in is 32\.0: it must be a whole"),
        ({"architecture": "topk", "k": "8"}, "k is '8': it must be a whole number"),
        ({"architecture": "topk", "k": 65}, "k is 65, but the SAE has 64 latents"),
        ({"architecture": "topk"}, "k is 100, but the SAE has 64 latents"),
        ({"metadata": {"model_name": ["model"]}}, r"model_name is \['model'\] in metadata"),
        ({"metadata": {"hook_name": 3}}, "hook_name is 3 in metadata: it must be text"),
    ],
)
def test_settings_of_another_kind_are_named(
    model: Any, tmp_path: Path, settings: dict[str, Any], match: str
):
    with pytest.raises(InputError, match=match):
        load_sae(change_config(save_tiny_sae(tmp_path), **settings), model=model)


def test_an_architecture_that_is_left_out_is_the_first_there_was(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    del config["architecture"]
    (folder / "cfg.json").write_text(json.dumps(config))
    assert load_sae(folder, model=model).cfg.architecture() == "standard"


def test_metadata_without_a_version_is_kept(model: Any, tmp_path: Path):
    folder = change_config(save_tiny_sae(tmp_path), metadata={"sae_lens_version": None})
    sae = load_sae(folder, model=model)
    assert sae_hook_name(sae) == SITE
    assert sae.cfg.metadata.model_name == "model"
    assert sae.cfg.metadata.probe_explained_variance == pytest.approx(1, abs=1e-5)


def test_configurations_of_older_versions_load(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    old = {
        "model_name": "model",
        "hook_point": SITE,
        "d_in": D_MODEL,
        "d_sae": 2 * D_MODEL,
        "dtype": "torch.float32",
        "device": "cpu",
        "activation_fn_str": "relu",
        "normalize_activations": False,
    }
    (folder / "cfg.json").write_text(json.dumps(old))
    sae = load_sae(folder, model=model)
    assert sae.cfg.architecture() == "standard"
    assert sae_hook_name(sae) == SITE
    (folder / "cfg.json").write_text(json.dumps({**old, "model_name": "another"}))
    with pytest.raises(InputError, match="was made for another"):
        load_sae(folder, model=model)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_normalised_activations_are_reconstructed(model: Any, tmp_path: Path, kind: str):
    folder = change_config(save_tiny_sae(tmp_path), normalize_activations=kind)
    sae = load_sae(folder, model=model)
    assert sae.cfg.metadata.probe_explained_variance == pytest.approx(1, abs=1e-3)


def test_the_very_weights_settle_what_the_name_does_not(model: Any, tmp_path: Path):
    folder = save_tiny_sae(tmp_path, model_name="a name of its own")
    known = {"model_weights": weights_fingerprint(model)}
    change_config(folder, metadata={"saepd_training": known})
    assert sae_hook_name(load_sae(folder, model=model)) == SITE
    change_config(folder, metadata={"saepd_training": {"model_weights": "of another"}})
    with pytest.raises(InputError, match="was made for a name of its own"):
        load_sae(folder, model=model)


def test_an_sae_of_another_name_says_what_it_explains(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    load_sae(save_tiny_sae(tmp_path, model_name="another"), model=model, any_model=True)
    assert "was made for another, but the model is model: it explains 1.00" in caplog.text


def test_a_folder_has_no_ids(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder: an SAE id is of a SAELens release"):
        load_sae(save_tiny_sae(tmp_path), "15")


def test_a_configuration_is_read_without_the_weights(tmp_path: Path):
    folder = save_tiny_sae(tmp_path)
    (folder / "sae_weights.safetensors").write_bytes(b"")
    found, config = sae_config(folder)
    assert found == folder
    assert (config["architecture"], config["d_in"]) == ("standard", D_MODEL)
    assert config["metadata"]["hook_name"] == SITE
    with pytest.raises(InputError, match="no such SAE folder: missing"):
        sae_config("./missing")


def test_kinds_that_cannot_be_read_are_refused_before_their_weights(tmp_path: Path):
    folder = save_tiny_sae(tmp_path, hook_name="blocks.1.hook_mlp_in")
    (folder / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"does not compute blocks\.1\.hook_mlp_in by itself"):
        load_sae(folder)


@pytest.mark.parametrize("config", ['{"architecture": [1]}', '{"a":' * 9000, "[]", "\x00"])
def test_configurations_that_are_none_are_refused(tmp_path: Path, config: str):
    (save_tiny_sae(tmp_path) / "cfg.json").write_text(config)
    with pytest.raises(InputError, match=r"cfg\.json"):
        load_sae(tmp_path)
