"""Load sparse autoencoders, and refuse those that do not fit the model they are to be used on.

An SAE of the wrong model, site or width encodes without complaint and returns nonsense. So every
SAE that is loaded for a model is checked against it: the site exists, the width is right, the SAE
was made for this model, and it reconstructs what this model computes on a short text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from saepd.common.errors import InputError, first_line
from saepd.models.sites import read_site
from saepd.models.tokens import prompt_ids

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

DEFAULT_BLOCK = 15
# What explains less than this was trained on something else: fitting SAEs of any width reach two
# or three times as much, unfitting ones are near or below zero.
MIN_EXPLAINED_VARIANCE = 0.3
PROBE_TEXT = (
    "The ferry leaves the old harbour twice a day, once before breakfast and once in the late "
    "afternoon. Most of the passengers are people from the island who work in town, though in "
    "summer there are visitors too. A ticket costs four coins, or three with a letter from the "
    "school. If the wind is strong, the captain waits, and somebody in the small cafe by the pier "
    "usually starts a conversation about the weather, the price of fish, or the next election."
)

_WEIGHTS = "sae_weights.safetensors"
_CONFIG = "cfg.json"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_PROBE_TOKENS = 128

_log = logging.getLogger(__name__)


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
        model: The language model it is to be used on. Checks are made if it is given; the share
            of variance explained on a probe text is then in
            ``sae.cfg.metadata.probe_explained_variance``.
        device: Where the weights go; if None, where the model computes this site, or the CPU.
        any_model: Accept an SAE that names another model (a fine-tune of the same base, say).

    Returns:
        The SAE in eval mode, gradients off.

    Raises:
        InputError: no such SAE, unreadable or pickled files, or an SAE that does not fit.
    """
    name = str(DEFAULT_BLOCK if source is None else source)
    if sae_id is not None:
        sae = _from_release(name, sae_id)
    else:
        # A digit string counts as a block, because that is how a block comes from a command line.
        sae = _from_folder(_shipped(int(name)) if name.isdecimal() else Path(name).expanduser())
    sae.eval()
    sae.requires_grad_(False)
    sae.cfg.metadata.loaded_from = _loaded_from(name, sae_id, any_model)
    if model is not None:
        site_device = _check_fits(sae, model, any_model)
        device = site_device if device is None else device
    return sae if device is None else sae.to(device=str(device))


def _loaded_from(name: str, sae_id: str | None, any_model: bool) -> dict[str, str | int | bool]:
    """What artefacts record so that the SAE can be loaded again: fields of `ModelConfig`."""
    found: dict[str, str | int | bool] = {"any_model": True} if any_model else {}
    if sae_id is not None:
        return found | {"sae": name, "sae_id": sae_id}
    if name.isdecimal():
        return found | {"block": int(name)}
    return found | {"sae": str(Path(name).expanduser().resolve())}


def sae_hook_name(sae: SAE[Any]) -> str:
    """The site the SAE reads, such as ``blocks.15.hook_resid_post``.

    Raises:
        InputError: the SAE does not say.
    """
    name = sae.cfg.metadata.hook_name
    if not name:
        raise InputError("the SAE names no site: its cfg.json needs hook_name in metadata")
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
    settings = sae.cfg.to_dict()
    told = {k: str(v) for k, v in settings.items() if k not in ("metadata", "device", "dtype")}
    return json.dumps({"architecture": sae.cfg.architecture(), **told}, sort_keys=True)


def explained_variance(x: Float[torch.Tensor, "n d"], x_hat: Float[torch.Tensor, "n d"]) -> float:
    """Share of the variance of x that x_hat accounts for, pooled over rows; 1 is perfect.

    ``1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2``, the mean being over rows.
    """
    x, x_hat = x.double(), x_hat.double()
    return 1 - float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())


def shipped_folders() -> list[Path]:
    """Folders of the shipped SAEs, lowest block first.

    They are inside an installed package, and beside it in a source checkout.
    """
    package = Path(__file__).parents[1]
    for root in (package / "saes_shipped", package.parent / "artifacts" / "saes"):
        found = [f for f in root.glob("blocks.*.hook_resid_post") if f.is_dir()]
        if found:
            return sorted(found, key=_block)
    return []


def _block(folder: Path) -> int:
    return int(folder.name.split(".")[1])


def _shipped(block: int) -> Path:
    shipped = {_block(folder): folder for folder in shipped_folders()}
    if block not in shipped:
        known = ", ".join(map(str, shipped)) or "none"
        raise InputError(f"no SAE is shipped for block {block}: there is one for blocks {known}")
    return shipped[block]


def _from_folder(folder: Path) -> SAE[Any]:
    from sae_lens import SAE

    if not folder.is_dir():
        raise InputError(f"no such SAE folder: {folder} (a SAELens release needs a sae_id as well)")
    if not (folder / _WEIGHTS).is_file():
        pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in _PICKLES]
        why = (
            f"its weights are pickled ({pickles[0]}), which saepd never opens: convert them to "
            "safetensors with SAELens"
            if pickles
            else f"it holds no {_WEIGHTS}"
        )
        raise InputError(f"{folder} is no usable SAE folder: {why}")
    if not (folder / _CONFIG).is_file():
        raise InputError(f"{folder} is no usable SAE folder: it holds no {_CONFIG}")
    _check_architecture(folder / _CONFIG)
    try:
        return SAE.load_from_disk(folder, device="cpu", dtype="float32")
    except Exception as error:
        # safetensors, torch and SAELens raise unrelated classes for files they cannot use.
        raise InputError(f"cannot load the SAE in {folder}: {first_line(error)}") from error


def _check_architecture(path: Path) -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY

    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a SAELens configuration: expected a JSON object")
    # Configurations from before SAELens 6 may leave the architecture out; it was then this one.
    architecture = config.get("architecture", "standard")
    if architecture not in SAE_CLASS_REGISTRY:
        known = ", ".join(sorted(SAE_CLASS_REGISTRY))
        raise InputError(f"{path}: unknown architecture {architecture!r}; SAELens has {known}")


def _from_release(release: str, sae_id: str) -> SAE[Any]:
    from sae_lens import SAE

    try:
        return SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    except Exception as error:
        # The hub, its cache and some thirty converters raise unrelated classes.
        raise InputError(
            f"cannot load the SAE {sae_id!r} of release {release!r}: {first_line(error)}"
        ) from error


def _check_fits(sae: SAE[Any], model: TransformerBridge, any_model: bool) -> torch.device:
    """Raise InputError unless the SAE fits the model; return the site's device."""
    hook_name = sae_hook_name(sae)
    if hook_name not in model.hook_dict:
        raise InputError(
            f"the SAE reads {hook_name}, which {model.cfg.model_name} does not have: it has "
            f"{model.cfg.n_layers} blocks, so residual sites go up to "
            f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        )
    made_for = sae.cfg.metadata.model_name
    if made_for and not any_model and _plain(made_for) != _plain(model.cfg.model_name):
        raise InputError(
            f"the SAE was made for {made_for}, but the model is {model.cfg.model_name}: pass "
            "any_model=True if the two compute the same activations"
        )
    x = _probe_activations(model, hook_name)
    width = x.shape[1:].numel()
    if sae.cfg.d_in != width:
        raise InputError(
            f"the SAE expects vectors of width {sae.cfg.d_in}, but {hook_name} of "
            f"{model.cfg.model_name} has width {width}"
        )
    x_hat = sae(x.cpu().float())
    share = explained_variance(x.cpu().float().flatten(1), x_hat.flatten(1))
    sae.cfg.metadata.probe_explained_variance = share
    # Written so that NaN, which damaged weights give, is refused too.
    if not share >= MIN_EXPLAINED_VARIANCE:
        raise InputError(
            f"the SAE explains {share:.2f} of the variance at {hook_name} of "
            f"{model.cfg.model_name} on a probe text, expected at least "
            f"{MIN_EXPLAINED_VARIANCE}: it was made for another model, other weight processing "
            "or another normalisation"
        )
    _log.info(
        "SAE %s: %s, %d latents, explains %.2f of the variance on a probe text",
        hook_name,
        sae.cfg.architecture(),
        sae.cfg.d_sae,
        share,
    )
    return x.device


def _probe_activations(model: TransformerBridge, hook_name: str) -> torch.Tensor:
    """What the site holds on the probe text, first position and special tokens left out."""
    row = prompt_ids(model.tokenizer, PROBE_TEXT)[:_PROBE_TOKENS]
    return read_site(
        model, [hook_name], [row], lambda batch: [batch.held[hook_name][batch.counted]]
    )[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rstrip("/").rsplit("/", 1)[-1].lower())
