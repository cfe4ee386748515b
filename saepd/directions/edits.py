"""Edit SAE latents of an activation by difference, so that what the SAE cannot see is kept.

For an activation h with latents f = encode(h), every edit is ``h + decode(edit(f)) - decode(f)``:
the reconstruction error of the SAE cancels. Because every supported decoder is linear at a
position, the difference needs only the edited latents.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.modes import Mode

if TYPE_CHECKING:
    from sae_lens import SAE


# Latents of these can be computed one by one; of the others only together.
_PER_LATENT = ("standard", "gated", "jumprelu")
_LINEAR = (*_PER_LATENT, "topk", "abstopk", "matching_pursuit")


def check_supported(sae: SAE[Any]) -> None:
    """Refuse dictionaries whose edits are no difference at one position of one site.

    Raises:
        InputError: a transcoder (reads and writes at different sites), a temporal SAE (decodes
            from several positions), a per-head SAE, or a training-time SAE.
    """
    from sae_lens import TrainingSAE

    architecture = sae.cfg.architecture()
    if isinstance(sae, TrainingSAE):
        raise InputError("a training-time SAE cannot steer: save it and load the inference SAE")
    if sae.cfg.reshape_activations != "none":
        raise InputError("an SAE on attention heads (hook_z) cannot steer: use one on the residual")
    if architecture not in _LINEAR:
        raise InputError(
            f"an SAE of architecture {architecture!r} cannot steer: use one of {', '.join(_LINEAR)}"
        )


def decoder_rows(sae: SAE[Any], latents: Int[Tensor, " k"]) -> Float[Tensor, "k d_in"]:
    """What one unit of each latent adds to the reconstruction, before run-time rescaling."""
    rows = sae.W_dec.detach()[latents].float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        # The encoder multiplied by this norm, so one unit of activation writes a unit vector.
        rows = rows / rows.norm(dim=-1, keepdim=True)
    return rows


def runtime_scale(
    sae: SAE[Any], h: Float[Tensor, "*batch d_in"]
) -> Float[Tensor, "*batch 1"] | float:
    """Factor by which the SAE rescales its output at each position; 1 without normalisation."""
    kind = sae.cfg.normalize_activations
    if kind == "constant_norm_rescale":
        return h.norm(dim=-1, keepdim=True) / sae.cfg.d_in**0.5
    if kind == "layer_norm":
        return (h - h.mean(dim=-1, keepdim=True)).std(dim=-1, keepdim=True)
    return 1.0


def narrow(sae: SAE[Any], latents: Int[Tensor, " k"]) -> SAE[Any]:
    """The same SAE with only some of its latents, for architectures that compute each alone."""
    cfg = copy.deepcopy(sae.cfg)
    cfg.d_sae = len(latents)
    small = type(sae)(cfg)
    state = {
        name: value if name == "b_dec" else value.index_select(int(name == "W_enc"), latents)
        for name, value in sae.state_dict().items()
    }
    small.load_state_dict(state)
    return small.eval()


class LatentEdit:
    """One edit of some latents of one SAE: computes the difference it makes to an activation.

    Args:
        sae: An inference SAE; see `check_supported`.
        latents: The edited latents.
        values: Added amounts (``add``) or target activations (``clamp``) in the SAE's activation
            units, factors (``scale``), or ignored (``ablate``).
        mode: What happens to each latent. ``reconstruct`` is a control that edits none: it
            replaces the activation by its reconstruction, and so measures what that costs.
    """

    def __init__(
        self, sae: SAE[Any], latents: Int[Tensor, " k"], values: Float[Tensor, " k"], mode: Mode
    ) -> None:
        check_supported(sae)
        self.sae = sae
        self.latents = latents.to(sae.W_dec.device)
        self.values = values.to(sae.W_dec.device).float()
        self.mode = mode
        self.rows = decoder_rows(sae, self.latents)
        per_latent = sae.cfg.architecture() in _PER_LATENT
        encodes = mode in ("scale", "clamp", "ablate")
        self._narrow = narrow(sae, self.latents) if per_latent and encodes else None

    def encode(self, h: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch k"]:
        """Activations of the edited latents only, in float32."""
        if self._narrow is not None:
            return self._narrow.encode(h).float()
        return self.sae.encode(h)[..., self.latents].float()

    def delta(self, h: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """decode(edit(encode(h))) - decode(encode(h)), in the dtype of h."""
        with torch.no_grad():
            x = h.float()
            if self.mode == "reconstruct":
                return (self.sae.decode(self.sae.encode(x)) - x).to(h.dtype)
            if self.mode == "add":
                change = self.values.expand(*x.shape[:-1], -1)
            else:
                f = self.encode(x)
                if self.mode == "scale":
                    change = f * (self.values - 1)
                elif self.mode == "clamp":
                    change = self.values - f
                else:
                    change = -f
            return ((change @ self.rows) * runtime_scale(self.sae, x)).to(h.dtype)
