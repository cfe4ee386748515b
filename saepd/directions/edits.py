"""What a direction does to an activation: add a vector, edit SAE latents, or reconstruct.

For an activation h with latents f = encode(h), every edit of latents is
``h + decode(edit(f)) - decode(f)``: the reconstruction error of the SAE cancels. Because every
supported decoder is linear at a position, the difference needs only the edited latents.

All edits answer the same four questions: the ``width`` of the activations they edit, the
``constant`` vector that they add (None where it depends on an activation), the site whose
activation they read if it is not the one they edit (``reads``: a transcoder's does), and the
``delta`` that they make.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.given_numbers import Numbers, finite_vector, latent_ids
from saepd.directions.modes import EDIT_MODES, EditMode
from saepd.saes.abilities import TRANSCODERS, check_writes
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE

# Latents of these can be computed one by one; of the others only together.
_PER_LATENT = ("standard", "gated", "jumprelu", *TRANSCODERS)
# What a narrow SAE keeps as it is: no axis of these is one of latents.
_OF_NO_LATENT = {"b_dec", "W_skip"}


def scales_with_activation(sae: SAE[Any]) -> bool:
    """Whether an SAE normalises each activation, so that what a latent writes depends on it."""
    # What a transcoder gives is no activation of the site that it normalises.
    normalises = sae.cfg.normalize_activations in ("constant_norm_rescale", "layer_norm")
    return normalises and sae.cfg.architecture() not in TRANSCODERS


def decoder_rows(sae: SAE[Any], latents: Int[Tensor, " k"]) -> Float[Tensor, "k d_model"]:
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
    if not scales_with_activation(sae):
        return 1.0
    kind = sae.cfg.normalize_activations
    if kind == "constant_norm_rescale":
        return h.norm(dim=-1, keepdim=True) / sae.cfg.d_in**0.5
    return (h - h.mean(dim=-1, keepdim=True)).std(dim=-1, keepdim=True)


def narrow(sae: SAE[Any], latents: Int[Tensor, " k"]) -> SAE[Any]:
    """The same SAE with only some of its latents, for architectures that compute each alone."""
    cfg = copy.deepcopy(sae.cfg)
    cfg.d_sae = len(latents)
    small = type(sae)(cfg)
    state = sae.state_dict()
    for name in state.keys() - _OF_NO_LATENT:
        state[name] = state[name].index_select(int(name == "W_enc"), latents)
    small.load_state_dict(state)
    return small.eval()


@dataclass(frozen=True, eq=False, repr=False, init=False)
class AddVector:
    """Adds one vector wherever it acts; no SAE is needed.

    Attributes:
        vector: What is added, [d_model], in units of the residual.

    Raises:
        InputError: it is no vector of finite numbers.
    """

    vector: Float[Tensor, " d_model"]

    def __init__(self, vector: Numbers) -> None:
        object.__setattr__(self, "vector", finite_vector(vector, "the vector to add"))

    def __repr__(self) -> str:
        return f"AddVector({self.width} numbers, norm {float(self.vector.norm()):.3g})"

    @property
    def width(self) -> int:
        """Size of the activations it edits."""
        return len(self.vector)

    @property
    def constant(self) -> Float[Tensor, " d_model"]:
        """The vector itself."""
        return self.vector

    @property
    def reads(self) -> None:
        """None: it reads no activation."""
        return None

    def delta(self, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The vector at every position, in the dtype of h."""
        return self.vector.to(h).expand_as(h)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class EditLatents:
    """Edits some latents of one SAE, and leaves what the SAE cannot see as it is.

    An activation h becomes ``h + decode(edit(encode(h))) - decode(encode(h))``, so that the SAE's
    error of reconstruction stays in it.

    Attributes:
        sae: SAE in evaluation mode, as `saepd.load_sae` gives it; see `saepd.saes.abilities`.
        latents: Ids of the edited latents, [k], each once.
        values: One number for each latent, [k]: amounts to add (``add``) or activations to hold
            (``clamp``), in the SAE's activation units, or factors (``scale``). None for ``ablate``.
        mode: What happens to each latent: ``add``, ``scale``, ``clamp`` or ``ablate``.

    Raises:
        InputError: an SAE that cannot steer, an unknown mode, no latents, ids that the SAE does
            not have or that come twice, or values that are not finite or not as many.
    """

    sae: SAE[Any]
    latents: Int[Tensor, " k"]
    values: Float[Tensor, " k"] | None
    mode: EditMode

    def __init__(
        self,
        sae: SAE[Any],
        latents: Numbers,
        values: Numbers | None = None,
        mode: EditMode = "add",
    ) -> None:
        check_writes(sae)
        if mode not in EDIT_MODES:
            raise InputError(f"unknown mode {mode!r}: use one of {', '.join(EDIT_MODES)}")
        ids = latent_ids(latents, sae.cfg.d_sae).to(sae.W_dec.device)
        object.__setattr__(self, "sae", sae)
        object.__setattr__(self, "latents", ids)
        object.__setattr__(self, "values", _values(values, len(ids), mode, sae.W_dec.device))
        object.__setattr__(self, "mode", mode)

    def __repr__(self) -> str:
        n = len(self.latents)
        what = f"latent {int(self.latents[0])}" if n == 1 else f"{n} latents"
        return f"EditLatents({self.mode} {what} of {self.sae.cfg.metadata.hook_name})"

    @property
    def width(self) -> int:
        """Size of the activations it edits."""
        return int(self.sae.W_dec.shape[1])

    @property
    def constant(self) -> Float[Tensor, " d_model"] | None:
        """The vector it adds wherever it acts, or None where that depends on the activation."""
        return None if scales_with_activation(self.sae) else self._added

    @property
    def reads(self) -> str | None:
        """The site whose activation a transcoder's edit reads; None of every other edit."""
        if self.constant is not None or self.sae.cfg.architecture() not in TRANSCODERS:
            return None
        return sae_hook_name(self.sae)

    @cached_property
    def _added(self) -> Float[Tensor, " d_model"] | None:
        """What ``add`` writes before run-time rescaling; None in the other modes."""
        if self.values is None or self.mode != "add":
            return None
        return self.values @ decoder_rows(self.sae, self.latents)

    @cached_property
    def _rows(self) -> Float[Tensor, "k d_model"]:
        return decoder_rows(self.sae, self.latents)

    @cached_property
    def _narrow(self) -> SAE[Any] | None:
        per_latent = self.sae.cfg.architecture() in _PER_LATENT
        return narrow(self.sae, self.latents) if per_latent else None

    def encode(self, h: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch k"]:
        """Activations of the edited latents only, in float32."""
        if self._narrow is not None:
            return self._narrow.encode(h).float()
        return self.sae.encode(h)[..., self.latents].float()

    def delta(self, h: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_model"]:
        """decode(edit(encode(h))) - decode(encode(h)), in the dtype of h."""
        with torch.no_grad():
            x = h.float()
            if self._added is not None:
                written = self._added.expand(*x.shape[:-1], -1)
            else:
                written = self._change(self.encode(x)) @ self._rows
            return (written * runtime_scale(self.sae, x)).to(h.dtype)

    def _change(self, f: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """The difference that is made to activations of latents."""
        if self.values is None:
            return -f
        return f * (self.values - 1) if self.mode == "scale" else self.values - f


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruct:
    """Replaces an activation by its SAE's reconstruction: a control, which measures that cost.

    Attributes:
        sae: SAE in evaluation mode, as `saepd.load_sae` gives it; see `saepd.saes.abilities`.

    Raises:
        InputError: an SAE that cannot steer, or a transcoder.
    """

    sae: SAE[Any]

    def __post_init__(self) -> None:
        check_writes(self.sae)
        if self.sae.cfg.architecture() in TRANSCODERS:
            raise InputError(
                "a transcoder reconstructs another activation than it reads, so none is replaced "
                "by its reconstruction: leave this control out"
            )

    def __repr__(self) -> str:
        return f"Reconstruct({self.sae.cfg.metadata.hook_name})"

    @property
    def width(self) -> int:
        """Size of the activations it edits."""
        return int(self.sae.W_dec.shape[1])

    @property
    def constant(self) -> None:
        """None: what it adds depends on the activation."""
        return None

    @property
    def reads(self) -> None:
        """None: it reads the activation that it replaces."""
        return None

    def delta(self, h: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """decode(encode(h)) - h, in the dtype of h."""
        with torch.no_grad():
            x = h.float()
            return (self.sae.decode(self.sae.encode(x)) - x).to(h.dtype)


Edit: TypeAlias = AddVector | EditLatents | Reconstruct


def _values(
    values: Numbers | None, n: int, mode: EditMode, device: torch.device
) -> Float[Tensor, " k"] | None:
    if mode == "ablate":
        if values is not None:
            raise InputError("mode 'ablate' sets latents to zero: leave out the values")
        return None
    if values is None:
        raise InputError(f"mode {mode!r} needs values: give one for each latent")
    vector = finite_vector(values, "the values of latents")
    if len(vector) != n:
        raise InputError(f"{n} latents but {len(vector)} values: give one value for each latent")
    return vector.to(device)
