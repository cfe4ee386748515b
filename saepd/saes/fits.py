"""Whether an SAE fits a model: by its configuration first, then by what it explains.

An SAE of the wrong model, site or width encodes without complaint and returns nonsense. What the
configuration says is checked before any weight is loaded. What settles it is the measurement: the
share of the variance that it explains on a short text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.models.identity import check_model, same_name, weights_fingerprint
from saepd.models.sites import SiteBatch, read_site
from saepd.models.tokens import prompt_ids
from saepd.saes.abilities import TRANSCODERS, WRITABLE_SITE, check_is_sae, reconstruct

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

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
_PROBE_TOKENS = 128

_log = logging.getLogger(__name__)


def check_config(
    config: Mapping[str, Any], model: TransformerBridge, *, any_model: bool = False
) -> None:
    """Refuse an SAE whose configuration says that it does not fit.

    Args:
        config: In the form of SAELens 6.
        model: The language model.
        any_model: Do not ask which model the SAE was made for.

    Raises:
        InputError: an SAE that names no site, a site that the model does not have, another width,
            or another model.
    """
    metadata: Mapping[str, Any] = config.get("metadata") or {}
    site, name = metadata.get("hook_name"), str(model.cfg.model_name)
    if not site:
        raise InputError("the SAE names no site: its cfg.json needs hook_name in metadata")
    widths = {site: config["d_in"]}
    if config["architecture"] in TRANSCODERS:
        if not metadata.get("hook_name_out"):
            raise InputError(
                "the transcoder names no site to write: its cfg.json needs hook_name_out in "
                "metadata"
            )
        widths[metadata["hook_name_out"]] = config["d_out"]
    for each in widths:
        if each not in model.hook_dict:
            raise InputError(
                f"the SAE is for {each}, which {name} does not have: it has {model.cfg.n_layers} "
                "blocks, so residual sites go up to "
                f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
            )
    for each, d_in in widths.items():
        width = _width(model, each)
        if width is not None and d_in != width:
            raise _wrong_width(d_in, each, name, width)
    made_for = metadata.get("model_name")
    if any_model or not made_for or same_name(made_for, name):
        return
    # Names are hints: where the very weights are known, they settle it.
    trained_on = (metadata.get("saepd_training") or {}).get("model_weights")
    if trained_on is None or trained_on != weights_fingerprint(model):
        raise InputError(
            f"the SAE was made for {made_for}, but the model is {name}: pass any_model=True "
            "(--any-model) if the two compute the same activations"
        )


def check_sae(sae: SAE[Any], model: TransformerBridge) -> None:
    """Refuse a loaded SAE that is none, or of a site or width that the model does not have.

    Raises:
        InputError: what was given, and what would be right.
    """
    check_model(model)
    check_is_sae(sae)
    config = {**sae.cfg.to_dict(), "architecture": sae.cfg.architecture()}
    check_config(config, model, any_model=True)


def process_alike(sae: SAE[Any], model: TransformerBridge) -> None:
    """Fold what the SAE's model did to its weights into the SAE, since saepd leaves weights alone.

    With centred writing weights the residual stream of a model with LayerNorm is what it is
    without, less its mean over the dimensions. Encoding ``x - mean(x)`` with ``W`` is encoding
    ``x`` with the centred ``W``. What is written needs no change: LayerNorm takes a mean off.
    """
    asked = {name: on for name, on in (_asked_of_model(sae) or {}).items() if on}
    centres = asked.pop("center_writing_weights", False)
    if asked:
        _log.warning(
            "the SAE was trained on a model loaded with %s, which saepd does not do to weights",
            ", ".join(sorted(asked)),
        )
    if not centres or model.cfg.normalization_type not in ("LN", "LNPre"):
        return
    if not WRITABLE_SITE.fullmatch(str(sae.cfg.metadata.hook_name)):
        return
    weights = sae.state_dict()
    W_enc, b_dec = weights["W_enc"], weights["b_dec"]
    change = -W_enc.mean(0, keepdim=True).expand_as(W_enc)
    if sae.cfg.apply_b_dec_to_input:
        # The decoder's bias is still taken off as it was.
        shift = b_dec @ change
        for name in ("b_enc", "b_gate", "b_mag"):
            if name in weights:
                weights[name] += shift * weights["r_mag"].exp() if name == "b_mag" else shift
    W_enc += change
    sae.cfg.metadata.centred_for_model = True


def check_measured(sae: SAE[Any], model: TransformerBridge) -> torch.device:
    """Refuse an SAE that does not explain what the model computes on a short text.

    Returns:
        The device on which the model computes the SAE's site.

    Raises:
        InputError: another width than the site's, or too little of the variance explained.
    """
    site, name = str(sae.cfg.metadata.hook_name), str(model.cfg.model_name)
    target = str(sae.cfg.metadata.hook_name_out or site)
    row = prompt_ids(model.tokenizer, PROBE_TEXT)[:_PROBE_TOKENS]

    def probe(batch: SiteBatch) -> list[list[torch.Tensor]]:
        return [[batch.held[each][batch.counted] for each in (site, target)]]

    [[read, written]] = read_site(model, [site, target], [row], probe)
    if sae.cfg.d_in != read.shape[1]:
        raise _wrong_width(sae.cfg.d_in, site, name, read.shape[1])
    x, y = read.cpu().float(), written.cpu().float()
    if sae.cfg.metadata.centred_for_model:
        y = y - y.mean(-1, keepdim=True)
    share = explained_variance(y, reconstruct(sae, x))
    sae.cfg.metadata.probe_explained_variance = share
    if not math.isfinite(share):
        weights = sae.state_dict().items()
        if damaged := [n for n, weight in weights if not bool(weight.isfinite().all())]:
            raise InputError(
                f"the weights of the SAE at {site} are damaged: {', '.join(damaged)} "
                f"{'holds' if len(damaged) == 1 else 'hold'} infinity or not-a-number"
            )
    # Written so that NaN, which damaged weights give, is refused too.
    if not share >= MIN_EXPLAINED_VARIANCE:
        processing = ", ".join(n for n, on in (_asked_of_model(sae) or {}).items() if on)
        raise InputError(
            f"the SAE explains {share:.2f} of the variance at {target} of {name} on a probe text, "
            f"expected at least {MIN_EXPLAINED_VARIANCE}: it was made for another model, other "
            f"weight processing{f' ({processing})' if processing else ''} or another normalisation"
        )
    _log.info(
        "SAE %s: %s, %d latents, explains %.2f of the variance on a probe text",
        site,
        sae.cfg.architecture(),
        sae.cfg.d_sae,
        share,
    )
    made_for = sae.cfg.metadata.model_name
    if made_for and not same_name(str(made_for), name):
        _log.warning(
            "the SAE was made for %s, but the model is %s: it explains %.2f of the variance on a "
            "probe text",
            made_for,
            name,
            share,
        )
    return read.device


def explained_variance(x: Float[torch.Tensor, "n d"], x_hat: Float[torch.Tensor, "n d"]) -> float:
    """Share of the variance of x that x_hat accounts for, pooled over rows; 1 is perfect.

    ``1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2``, the mean being over rows.
    """
    x, x_hat = x.double(), x_hat.double()
    return 1 - float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())


def _asked_of_model(sae: SAE[Any]) -> Mapping[str, Any] | None:
    """How SAELens would have loaded the model that this SAE was trained on."""
    return sae.cfg.metadata.model_from_pretrained_kwargs


def _width(model: TransformerBridge, site: str) -> int | None:
    """Width of a site as far as the model's configuration says it."""
    if site.endswith("attn.hook_z"):
        return int(model.cfg.n_heads) * int(model.cfg.d_head)
    if WRITABLE_SITE.fullmatch(site) or site.endswith(("hook_resid_mid", "hook_normalized")):
        return int(model.cfg.d_model)
    return None


def _wrong_width(d_in: int, site: str, name: str, width: int) -> InputError:
    return InputError(
        f"the SAE expects vectors of width {d_in}, but {site} of {name} has width {width}"
    )
