"""Load a language model with hooks: the packaged default, a hub id, a folder, a GGUF."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError, first_line
from saepd.models.device import quantisation_config, torch_device, torch_dtype
from saepd.models.packaged import DEFAULT_MODEL
from saepd.models.placing import (
    DeviceMap,
    check_not_offloaded,
    check_room,
    devices_of,
    shapes_by_config,
    shapes_in,
)
from saepd.models.proof import Proof, proof_file, prove, remember, remembered, take_probe
from saepd.models.source import files_of, find_model, read_model
from saepd.models.weights import check_complete, check_unquantised

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_log = logging.getLogger(__name__)


def load_model(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: DeviceMap | None = None,
    revision: str | None = None,
    quantize: str = "none",
    trust_remote_code: bool = False,
    trust_bridge: bool = False,
) -> TransformerBridge:
    """Load a causal language model with TransformerLens hooks.

    What is loaded is proved to be the whole checkpoint, and to compute with hooks what it computes
    in transformers. The proof is made once for a model and the installed versions, and remembered
    in the cache.

    Args:
        name: Nothing for the packaged default; a ``.gguf`` file; a local folder in the Hugging
            Face layout; or a hub id, which is looked for in the local cache first.
        device: Where the weights go (``"cpu"``, ``"cuda:0"``, ...); the best one there is if None.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or a torch dtype.
        device_map: Split over devices, as in transformers; excludes ``device``. Weights that are
            kept on the CPU or on disk for devices elsewhere are refused.
        revision: Branch, tag or commit of a hub id.
        quantize: ``"4bit"`` or ``"8bit"`` keeps so much of each weight, by bitsandbytes; ``"none"``
            keeps all.
        trust_remote_code: Run code that comes with the checkpoint. Off unless asked for.
        trust_bridge: Go on where the bridge does not compute what transformers does.

    Returns:
        The bridge, in eval mode, gradients off, with ``cfg.model_name`` set to a stable name and
        no weight processing (TransformerBridge's default, and what artefacts record). Its
        tokenizer is the model's own.

    Raises:
        InputError: no such model, unreadable or incomplete files, options that exclude each other,
            weights that memory has no room for, or a bridge that computes something else than the
            model.
    """
    model, proof = load_proved(
        name,
        device=device,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        quantize=quantize,
        trust_remote_code=trust_remote_code,
    )
    if not proof.holds:
        what = f"with hooks, {model.cfg.model_name} does not compute what it does in transformers"
        worst = max(proof.comparisons, key=lambda c: c.difference)
        size = f"log-probabilities differ by up to {worst.difference:.2g} nats ({worst.what})"
        if not trust_bridge:
            raise InputError(
                f"{what}: {size}; pass trust_bridge=True (--trust-bridge) to go on all the same"
            )
        _log.warning("%s: %s", what, size)
    return model


def load_proved(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: DeviceMap | None = None,
    revision: str | None = None,
    quantize: str = "none",
    trust_remote_code: bool = False,
) -> tuple[TransformerBridge, Proof]:
    """As `load_model`, with the proof beside the model, whether it holds or not.

    Raises:
        InputError: as `load_model`, but for a bridge that computes something else.
    """
    if device is not None and device_map is not None:
        raise InputError("device and device_map exclude each other: give one of them")
    name = str(name) if name is not None else DEFAULT_MODEL
    precision = torch_dtype(dtype)
    quantisation = quantisation_config(quantize, precision)
    placed: DeviceMap = device_map if device_map is not None else {"": str(torch_device(device))}
    devices = devices_of(placed)
    source, label = find_model(name)

    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    def read(here_only: bool) -> tuple[Any, Any, dict[str, Any]]:
        options: dict[str, Any] = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "local_files_only": here_only,
        }
        config = AutoConfig.from_pretrained(source, **options)
        check_unquantised(Path(source), config, name)
        here = shapes_in(files_of(source, revision)) if here_only else {}
        shapes = here or shapes_by_config(config, trust_remote_code=trust_remote_code)
        check_room(name, shapes, precision, quantize, devices)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=precision,
            device_map=placed,
            quantization_config=quantisation,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
        return tokenizer, *loaded

    tokenizer, model, info = read_model(source, name, read)
    check_complete(info, name)
    check_not_offloaded(model)
    model.eval()
    model.requires_grad_(False)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    path = proof_file(model)
    proof = remembered(path)
    probe = take_probe(model, tokenizer, name) if proof is None else None
    bridge = _bridge_around(model, source, name, precision, devices[0])
    _give_tokenizer(bridge, tokenizer)
    bridge.eval()
    # The bridge has added modules of its own, such as zero biases and separate q, k and v.
    bridge.original_model.requires_grad_(False)
    bridge.cfg.model_name = label
    bridge.cfg.loaded_from = _loaded_from(name, revision, precision, quantize)
    if probe is not None:
        proof = prove(bridge, probe)
        if not proof.holds and proof.attention != "eager":
            # Some attention masks itself only where it is not eager, and loses that in a bridge.
            proof = _prove_eager(bridge, probe, proof)
        if proof.holds:
            remember(proof, path)
    assert proof is not None
    if proof.attention:
        _set_attention(bridge, proof.attention)
    return bridge, proof


def _bridge_around(
    model: Any, source: str, name: str, precision: torch.dtype, device: torch.device
) -> TransformerBridge:
    """A bridge around a loaded model, without a tokenizer.

    Raises:
        InputError: TransformerLens has no hooks for it.
    """
    from transformer_lens.model_bridge import TransformerBridge

    try:
        with _nothing_installed():
            return TransformerBridge.boot_transformers(
                source,
                hf_model=model,
                tokenizer=_no_tokenizer(),
                dtype=precision,
                # Where it takes tokens to; nothing of what is loaded is moved.
                device=device,
            )
    except Exception as error:
        # The adapters of some hundred architectures raise unrelated classes.
        raise InputError(
            f"TransformerLens cannot put hooks into {name!r} ({type(model).__name__}): "
            f"{first_line(error)}"
        ) from error


def _loaded_from(
    name: str, revision: str | None, dtype: torch.dtype, quantize: str
) -> dict[str, str]:
    """What artefacts record so that the model can be loaded again: fields of `ModelConfig`."""
    fields = {"dtype": str(dtype).removeprefix("torch."), "quantize": quantize}
    if revision is not None:
        fields["revision"] = revision
    if name != DEFAULT_MODEL:
        path = Path(name).expanduser()
        fields["model"] = str(path.resolve()) if path.exists() else name
    return fields


def _set_attention(bridge: TransformerBridge, implementation: str) -> None:
    hf_model: Any = bridge.original_model
    hf_model.set_attn_implementation(implementation)


def _prove_eager(bridge: TransformerBridge, probe: Any, other: Proof) -> Proof:
    """The proof with eager attention, if it holds."""
    _set_attention(bridge, "eager")
    proof = prove(bridge, probe)
    return proof if proof.holds else other


@contextmanager
def _nothing_installed() -> Iterator[None]:
    """Inside the block, neither pip nor uv finds anything to install.

    For a model that sees pictures, TransformerLens would fetch torchvision without asking.
    """
    before = {name: os.environ.get(name) for name in ("PIP_NO_INDEX", "UV_OFFLINE")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _no_tokenizer() -> Any:
    """A tokenizer of one letter, to boot a bridge with.

    Of a real one the bridge would load a copy that puts a token in front of every text, whether
    or not the model's own does.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, [])))


def _give_tokenizer(bridge: TransformerBridge, tokenizer: Any) -> None:
    """Make a bridge read text as the model's own tokenizer does."""
    # The bridge takes a first tokenizer as it is, and would change a second one.
    bridge.tokenizer = None
    bridge.tokenizer = tokenizer
    ids = tokenizer("a").input_ids
    opens = len(ids) > 1 and ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)
    bridge.cfg.tokenizer_prepends_bos = bridge.cfg.default_prepend_bos = opens
    bridge.cfg.tokenizer_appends_eos = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
