"""Which model and which SAE: the one configuration that commands and sweeps share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened

Dtype = Literal["float32", "bfloat16", "float16"]
Quantisation = Literal["none", "4bit", "8bit"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model and which SAE.

    Attributes:
        model: Hub id, folder or .gguf file of the language model; the packaged one if not given.
        sae: SAELens release, or folder, of the SAE; the shipped one if not given.
        sae_id: Id of the SAE within a SAELens release.
        block: Block of the shipped SAE (10, 15 or 20), where no other SAE is named.
        device: Device that computes: cpu, cuda, cuda:1, mps; the best there is if not given.
        dtype: Number format of the weights: float32, bfloat16 or float16.
        revision: Branch, tag or commit of a model on the hub; its newest if not given.
        device_map: How transformers splits the model over devices, such as auto.
        quantize: Bits that bitsandbytes keeps of each weight: none (all of them), 4bit or 8bit.
        trust_remote_code: Run Python code that comes with the model's files.
        trust_bridge: Go on where hooks change what the model computes, which is else refused.
        any_model: Accept an SAE that was made for a model of another name.
    """

    model: str | None = None
    sae: str | None = None
    sae_id: str | None = None
    block: int = 15
    device: str | None = None
    dtype: Dtype = "float32"
    revision: str | None = None
    device_map: str | None = None
    quantize: Quantisation = "none"
    trust_remote_code: bool = False
    trust_bridge: bool = False
    any_model: bool = False

    def __post_init__(self) -> None:
        _check_name("dtype", self.dtype, get_args(Dtype))
        _check_name("quantize", self.quantize, get_args(Quantisation))
        if self.sae_id is not None and self.sae is None:
            raise InputError(
                f"the SAE id {shortened(self.sae_id)} is given without its release: name the "
                "SAELens release with sae (on the command line, --sae)"
            )
        if self.device is not None and self.device_map is not None:
            raise InputError("device and device_map exclude each other: give one of them")
        if self.revision is not None and self.model is None:
            raise InputError("a revision is of a model on the hub: name that model with model")

    @property
    def sae_source(self) -> str | int:
        """What `saepd.load_sae` takes as its source.

        Raises:
            InputError: a model is named, and no SAE for it.
        """
        if self.sae is None and self.model is not None:
            raise InputError(
                "a model of your own needs an SAE of its own: name it with sae (on the command "
                "line, --sae)"
            )
        return self.block if self.sae is None else self.sae

    def model_settings(self) -> dict[str, Any]:
        """What `saepd.load_model` takes beside the model's name."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "revision": self.revision,
            "device_map": self.device_map,
            "quantize": self.quantize,
            "trust_remote_code": self.trust_remote_code,
            "trust_bridge": self.trust_bridge,
        }


def _check_name(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(f"unknown {kind} {shortened(name)}: {nearest(name, known)}")
