"""Load sparse autoencoders, and refuse those that do not fit the model they are to be used on.

An SAE of the wrong model, site or width encodes without complaint and returns nonsense. So every
SAE that is loaded for a model is checked against it: the site exists, the width is right, the SAE
was made for this model, and it reconstructs what this model computes on a short text.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError, first_line
from saepd.common.messages import shortened
from saepd.saes.abilities import TRANSCODERS, check_reads
from saepd.saes.fits import check_config, check_measured, process_alike
from saepd.saes.releases import check_release, load_release, release_config
from saepd.saes.settings import check_settings

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

DEFAULT_BLOCK = 15

_WEIGHTS = "sae_weights.safetensors"
_CONFIG = "cfg.json"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def load_sae(
    source: str | Path | int | None = None,
    sae_id: str | None = None,
    *,
    model: TransformerBridge | None = None,
    device: str | torch.device | None = None,
    any_model: bool = False,
) -> SAE[Any]:
    """Load an SAE for inference, in float32, and check that it fits the model.

    Local folders must hold safetensors. Releases are read by SAELens' own loaders; some of those
    releases are torch files, which torch reads without running code from them.

    Args:
        source: A SAELens release (then ``sae_id`` names the SAE in it); a local folder with
            ``cfg.json`` and ``sae_weights.safetensors``; a block number for the shipped SAE of
            the default model at that block; or nothing for the shipped one at block 15.
        sae_id: The SAE's id within the release.
        model: The language model it is to be used on. Checks are made if it is given: those of
            the configuration before the weights are loaded, then the share of variance explained
            on a probe text, which is in ``sae.cfg.metadata.probe_explained_variance``.
        device: Where the weights go; if None, where the model computes this site, or the CPU.
        any_model: Accept an SAE that names another model (a fine-tune of the same base, say).

    Returns:
        The SAE in eval mode, gradients off; ``sae.cfg.metadata.loaded_from`` says from where.

    Raises:
        InputError: no such SAE, unreadable or pickled files, or an SAE that does not fit.
    """
    name = _name(source)
    folder, config = sae_config(source, sae_id)
    if model is not None:
        check_config(config, model, any_model=any_model)
    with warnings.catch_warnings():
        # Its advice is for a class that saepd does not use; `process_alike` does what it means.
        warnings.filterwarnings("ignore", message="\nThis SAE has non-empty model_from_pretrained")
        sae = load_release(name, str(sae_id)) if folder is None else _from_folder(folder)
    sae.eval()
    sae.requires_grad_(False)
    sae.cfg.metadata.loaded_from = _loaded_from(name, sae_id, any_model)
    if model is not None:
        process_alike(sae, model)
        site_device = check_measured(sae, model)
        device = site_device if device is None else device
    return sae if device is None else sae.to(device=str(device))


def sae_config(
    source: str | Path | int | None = None, sae_id: str | None = None
) -> tuple[Path | None, dict[str, Any]]:
    """What there is to know about an SAE before anything large is loaded.

    Args:
        source: Where the SAE is loaded from, as for `load_sae`.
        sae_id: The SAE's id within a release.

    Returns:
        The folder it is in (None for a release), and its configuration in the form of SAELens 6.

    Raises:
        InputError: no such SAE, an unusable folder, or an SAE whose latents cannot be read.
    """
    folder = source_folder(source, sae_id)
    if folder is None:
        assert sae_id is not None
        config = release_config(_name(source), sae_id)
    else:
        config = _folder_config(folder)
    check_reads(config)
    return folder, config


def source_folder(source: str | Path | int | None = None, sae_id: str | None = None) -> Path | None:
    """The folder that an SAE would be loaded from; None for one of a release.

    Args:
        source: Where the SAE is loaded from, as for `load_sae`.
        sae_id: The SAE's id within the release.

    Raises:
        InputError: no such SAE.
    """
    name = _name(source)
    path = Path(name).expanduser()
    if sae_id is not None:
        if path.is_dir():
            raise InputError(f"{name} is a folder: an SAE id is of a SAELens release")
        check_release(name, sae_id)
        return None
    # A digit string counts as a block, because that is how a block comes from a command line.
    folder = _shipped(int(name)) if name.isdecimal() else path
    if not folder.exists() and not path.is_absolute() and not name.startswith((".", "~")):
        check_release(name, None)
    if not folder.is_dir():
        raise InputError(f"no such SAE folder: {folder}")
    return folder


def _name(source: str | Path | int | None) -> str:
    return str(DEFAULT_BLOCK if source is None else source)


def _loaded_from(name: str, sae_id: str | None, any_model: bool) -> dict[str, str | int | bool]:
    """What artefacts record so that the SAE can be loaded again: fields of `ModelConfig`."""
    fields: dict[str, str | int | bool] = {"any_model": True} if any_model else {}
    if sae_id is not None:
        return fields | {"sae": name, "sae_id": sae_id}
    if name.isdecimal():
        return fields | {"block": int(name)}
    return fields | {"sae": str(Path(name).expanduser().resolve())}


def sae_folder(sae: SAE[Any]) -> Path | None:
    """The folder that an SAE was loaded from; None for a release, or one that was not loaded."""
    loaded_from = sae.cfg.metadata.loaded_from
    if not loaded_from or "sae_id" in loaded_from:
        return None
    if "block" in loaded_from:
        return _shipped(int(loaded_from["block"]))
    return Path(loaded_from["sae"])


def sae_hook_name(sae: SAE[Any]) -> str:
    """The site the SAE reads, such as ``blocks.15.hook_resid_post``.

    Raises:
        InputError: the SAE does not say.
    """
    name = sae.cfg.metadata.hook_name
    if not name:
        raise InputError("the SAE names no site: its cfg.json needs hook_name in metadata")
    return str(name)


def written_site(sae: SAE[Any]) -> str:
    """The site that an SAE's latents are written at: the one it reads, but for a transcoder.

    Raises:
        InputError: the SAE does not say.
    """
    if sae.cfg.architecture() not in TRANSCODERS:
        return sae_hook_name(sae)
    name = sae.cfg.metadata.hook_name_out
    if not name:
        raise InputError(
            "the transcoder names no site to write: its cfg.json needs hook_name_out in metadata"
        )
    return str(name)


def sae_fingerprint(sae: SAE[Any]) -> str:
    """Short hash of all weights as float16: the same however they are stored or computed with."""
    digest = hashlib.sha256()
    for name, weight in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def sae_settings(sae: SAE[Any]) -> str:
    """What is no weight but changes latents, such as the k of a TopK SAE, as JSON."""
    left_out = ("metadata", "device", "dtype")
    settings = {k: str(v) for k, v in sae.cfg.to_dict().items() if k not in left_out}
    return json.dumps({"architecture": sae.cfg.architecture(), **settings}, sort_keys=True)


def shipped_folders() -> list[Path]:
    """Folders of the shipped SAEs, lowest block first.

    They are inside an installed package, and beside it in a source checkout.
    """
    package = Path(__file__).parents[1]
    for root in (package / "saes_shipped", package.parent / "artifacts" / "saes"):
        folders = [f for f in root.glob("blocks.*.hook_resid_post") if f.is_dir()]
        if folders:
            return sorted(folders, key=_block)
    return []


def _block(folder: Path) -> int:
    return int(folder.name.split(".")[1])


def _shipped(block: int) -> Path:
    shipped = {_block(folder): folder for folder in shipped_folders()}
    if block not in shipped:
        known = ", ".join(map(str, shipped)) or "none"
        raise InputError(f"no SAE is shipped for block {block}: there is one for blocks {known}")
    return shipped[block]


def _folder_config(folder: Path) -> dict[str, Any]:
    """The configuration in an SAE folder, as SAELens 6 has them, whichever version wrote it."""
    if not (folder / _WEIGHTS).is_file():
        pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in _PICKLES]
        why = (
            f"its weights are pickled ({pickles[0]}), which saepd never opens: convert them to "
            "safetensors with SAELens"
            if pickles
            else f"it holds no {_WEIGHTS}"
        )
        raise InputError(f"{folder} is no usable SAE folder: {why}")
    path = folder / _CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no usable SAE folder: it holds no {_CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a SAELens configuration: expected a JSON object")
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    # Configurations from before SAELens 6 may leave the architecture out; it was then this one.
    architecture = config.setdefault("architecture", "standard")
    # What is no text may have no hash, so it is not looked up.
    if architecture not in list(SAE_CLASS_REGISTRY):
        known = ", ".join(sorted(SAE_CLASS_REGISTRY))
        if architecture in list(SAE_TRAINING_CLASS_REGISTRY):
            raise InputError(
                f"{path}: {architecture} is only for training: save it with SAELens' "
                "save_inference_model"
            )
        raise InputError(f"{path}: unknown architecture {architecture!r}; SAELens has {known}")
    # Without a version SAELens takes it for an old form, in which these stood beside the rest.
    metadata = config.get("metadata", {})
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: metadata is {shortened(metadata)}: it must be a JSON object")
    if "metadata" not in config or metadata.get("sae_lens_version") is not None:
        try:
            config = handle_config_defaulting(config)
        except Exception as error:
            # What a field of the wrong kind leads to there depends on the field.
            raise InputError(
                f"{path} is not a SAELens configuration: {first_line(error)}"
            ) from error
    check_settings(config, path)
    return config


def _from_folder(folder: Path) -> SAE[Any]:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    def load(path: Any, device: str, cfg_overrides: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, weights = sae_lens_disk_loader(path, device, cfg_overrides)
        config.setdefault("architecture", "standard")
        metadata = config.get("metadata")
        if isinstance(metadata, dict) and metadata.get("sae_lens_version") is None:
            # SAELens would drop all metadata that names no version.
            metadata["sae_lens_version"] = version("sae-lens")
        return config, weights

    try:
        return SAE.load_from_disk(folder, device="cpu", dtype="float32", converter=load)
    except Exception as error:
        # safetensors, torch and SAELens raise unrelated classes for files they cannot use.
        # What torch says of weights that do not fit has one line for each of them.
        why = textwrap.shorten(str(error), 240, placeholder=" ...") or type(error).__name__
        raise InputError(f"cannot load the SAE in {folder}: {why}") from error
