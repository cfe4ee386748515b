"""What an SAE can be used for: to read latents, and to write edits of them.

Every dictionary that SAELens loads is one of three kinds. Those whose latents are written at a site
of the residual stream can do both. Those on other sites can be read: features work, directions do
not. The rest is refused when it is loaded.

A transcoder reads one site and writes another: its latents are of what a block's MLP is given, say,
and their decoder rows are part of what it gives. A skip connection is no matter of latents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.messages import shortened

if TYPE_CHECKING:
    from sae_lens import SAE

# What these hold is, or is added to, the residual stream.
WRITABLE_SITE = re.compile(
    r"blocks\.\d+\.(hook_(resid_pre|resid_post|in|out|attn_out|mlp_out)|(attn|mlp)\.hook_out)"
)
# TransformerBridge computes these only when it is told to.
_OFF = re.compile(r".*(attn\.hook_result|hook_[qkv]_input|mlp_in|attn_in)")

# What a transcoder may write. It is the last that a block adds, so all it may read is there before.
_MLP_OUTPUT = re.compile(r"blocks\.(\d+)\.(hook_mlp_out|mlp\.hook_out)")
_AFTER_MLP = ("hook_mlp_out", "mlp.hook_out", "hook_resid_post", "hook_out")

TRANSCODERS = (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
# Their decoders are linear at one position, so that an edit is a sum of decoder rows.
_LINEAR = ("standard", "gated", "jumprelu", "topk", "abstopk", "matching_pursuit", *TRANSCODERS)


@dataclass(frozen=True)
class Abilities:
    """What an SAE can be used for.

    Attributes:
        reads: Whether its latents can be read, and so chosen by feedback.
        writes: Whether edits of its latents can steer.
        why_not: Why it cannot do both, as the end of a sentence; empty if it can.
    """

    reads: bool
    writes: bool
    why_not: str = ""


def abilities(sae: SAE[Any]) -> Abilities:
    """What a loaded SAE can be used for."""
    from sae_lens import TrainingSAE

    if isinstance(sae, TrainingSAE):
        why = "it is a training-time SAE: save it, and load the inference SAE"
        return Abilities(True, False, why)
    return abilities_of({**sae.cfg.to_dict(), "architecture": sae.cfg.architecture()})


def abilities_of(config: Mapping[str, Any]) -> Abilities:
    """What an SAE can be used for, by its configuration alone (in the form of SAELens 6)."""
    metadata: Mapping[str, Any] = config.get("metadata") or {}
    site, architecture = str(metadata.get("hook_name") or ""), config["architecture"]
    if architecture == "temporal":
        return Abilities(False, False, "a temporal SAE reads several positions at once")
    if metadata.get("hook_head_index") is not None:
        return Abilities(False, False, "it reads a single attention head")
    if _OFF.fullmatch(site):
        return Abilities(False, False, f"TransformerBridge does not compute {site} by itself")
    written = str(metadata.get("hook_name_out") or "") if architecture in TRANSCODERS else site
    why = ""
    if written != site:
        why = _why_not_transcoded(site, written)
    elif architecture not in _LINEAR:
        why = f"edits are made with the architectures {', '.join(_LINEAR)}, not {architecture}"
    elif config.get("normalize_activations") == "covariance_whitening":
        why = "its activations are whitened and the whitening is not folded into its weights"
    elif config.get("reshape_activations") == "hook_z":
        why = f"it is on attention heads (hook_z): {why_not_written('blocks.N.attn.hook_z')}"
    elif site and not WRITABLE_SITE.fullmatch(site):
        why = f"it is on {site}: {why_not_written(site)}"
    return Abilities(True, not why, why)


def _why_not_transcoded(site: str, written: str) -> str:
    """Why edits of a transcoder's latents are not made; empty if they are."""
    if not written:
        return "it does not say where it writes: a transcoder needs hook_name_out"
    output = _MLP_OUTPUT.fullmatch(written)
    if output is None:
        return f"it writes {written}, and a transcoder's edits are made at its block's hook_mlp_out"
    block, _, name = site.removeprefix("blocks.").partition(".")
    if block != output[1] or name in _AFTER_MLP:
        return f"it reads {site} and writes {written}: both must be in one block, in this order"
    return ""


def why_not_written(site: str) -> str:
    """Why an edit at a site that is not writable is refused, and where edits can be made."""
    use = "steer at a block's hook_resid_pre, hook_resid_post, hook_attn_out or hook_mlp_out"
    if site.endswith("hook_resid_mid"):
        return f"only the block's MLP would see an edit there, not the residual stream; {use}"
    if not site.startswith("blocks."):
        return f"that is outside the blocks, where saepd writes; {use}"
    return f"what is there reaches the residual stream only through the rest of its block; {use}"


def check_reads(config: Mapping[str, Any]) -> None:
    """Refuse an SAE whose latents cannot be read.

    Raises:
        InputError: why.
    """
    able = abilities_of(config)
    if not able.reads:
        raise InputError(f"this SAE cannot be used: {able.why_not}")


def check_is_sae(sae: object) -> None:
    """Refuse what is no loaded SAE, such as the folder of one.

    Raises:
        InputError: what was given, and what would be right.
    """
    from sae_lens import SAE

    if not isinstance(sae, SAE):
        raise InputError(f"an SAE is needed, as load_sae returns it, not {shortened(sae)}")


def check_writes(sae: SAE[Any]) -> None:
    """Refuse an SAE whose latents can be read but not edited.

    Raises:
        InputError: why.
    """
    check_is_sae(sae)
    able = abilities(sae)
    if not able.writes:
        raise InputError(f"this SAE can be read (saepd features) but cannot steer: {able.why_not}")


def encode(sae: SAE[Any], x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
    """Latents of activations whose attention heads, if they have any, are joined."""
    # SAELens would take the two last dimensions for the heads: here all are one head.
    return sae.encode(x.unsqueeze(-2) if sae.hook_z_reshaping_mode else x)


def reconstruct(sae: SAE[Any], x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
    """What an SAE makes of activations, heads joined: of a transcoder, what it would write."""
    return sae(x.unsqueeze(-2)).squeeze(-2) if sae.hook_z_reshaping_mode else sae(x)
