"""Load a language model with hooks: the packaged default, a hub id, a folder, a GGUF."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError, first_line
from saepd.models.cache import converted
from saepd.models.packaged import DEFAULT_MODEL, DEFAULT_MODEL_SHA256, default_gguf

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def load_model(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: str | dict[str, str | int] | None = None,
    revision: str | None = None,
    quantize: str = "none",
    trust_remote_code: bool = False,
) -> TransformerBridge:
    """Load a causal language model with TransformerLens hooks.

    Args:
        name: Nothing for the packaged default; a ``.gguf`` file; a local folder in the Hugging
            Face layout; or a hub id.
        device: Where the weights go (``"cpu"``, ``"cuda:0"``, ...); the best one there is if None.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or a torch dtype.
        device_map: Split over devices, as in transformers; excludes ``device``.
        revision: Branch, tag or commit of a hub id.
        quantize: ``"4bit"`` or ``"8bit"`` keeps so much of each weight, by bitsandbytes on CUDA;
            ``"none"`` keeps all.
        trust_remote_code: Run code that comes with the checkpoint. Off unless asked for.

    Returns:
        The bridge, in eval mode, gradients off, with ``cfg.model_name`` set to a stable name and
        no weight processing (TransformerBridge's default, and what artefacts record).

    Raises:
        InputError: no such model, unreadable files, or options that exclude each other.
    """
    if device is not None and device_map is not None:
        raise InputError("device and device_map exclude each other: give one of them")
    name = str(name) if name is not None else DEFAULT_MODEL
    source, label = _resolve(name)
    torch_dtype = _torch_dtype(dtype)
    target = _checked_device(device or best_device())

    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if quantize != "none":
        options |= {"quantization_config": _quantisation(quantize, torch_dtype)}
        # transformers puts quantised weights where they run and refuses to move them.
        device_map = device_map or {"": device or "cuda"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch_dtype, device_map=device_map, **options
        )
    except Exception as error:
        # transformers, safetensors and huggingface_hub raise unrelated classes for a bad source.
        raise InputError(f"cannot load the model {name!r}: {first_line(error)}") from error
    if device_map is None:
        model.to(target)
    model.eval()
    model.requires_grad_(False)
    # device moves the wrapped model, so for a dispatched one it must stay unset.
    bridge = TransformerBridge.boot_transformers(
        source,
        hf_model=model,
        tokenizer=_no_tokenizer(),
        dtype=torch_dtype,
        device=None if device_map is not None else target,
    )
    _give_tokenizer(bridge, tokenizer)
    bridge.eval()
    # The bridge has added modules of its own, such as zero biases and separate q, k and v.
    bridge.original_model.requires_grad_(False)
    bridge.cfg.model_name = label
    bridge.cfg.loaded_from = _loaded_from(name, revision, torch_dtype, quantize)
    return bridge


def _loaded_from(
    name: str, revision: str | None, dtype: torch.dtype, quantize: str
) -> dict[str, str]:
    """What artefacts record so that the model can be loaded again: fields of `ModelConfig`."""
    found = {"dtype": str(dtype).removeprefix("torch."), "quantize": quantize}
    if revision is not None:
        found["revision"] = revision
    if name != DEFAULT_MODEL:
        path = Path(name).expanduser()
        found["model"] = str(path.resolve()) if path.exists() else name
    return found


def _resolve(name: str) -> tuple[str, str]:
    """(what transformers can load, stable name) for whatever the user wrote."""
    if name == DEFAULT_MODEL:
        return str(converted(default_gguf(), DEFAULT_MODEL_SHA256)), DEFAULT_MODEL
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"no such GGUF file: {path}")
        return str(converted(path)), path.stem
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} holds no config.json: a model folder needs one")
        return str(path), path.resolve().name
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"no such model folder: {path}")
    return name, name


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
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    # The bridge takes a first tokenizer as it is, and would change a second one.
    bridge.tokenizer = None
    bridge.tokenizer = tokenizer
    ids = tokenizer("a").input_ids
    opens = len(ids) > 1 and ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)
    bridge.cfg.tokenizer_prepends_bos = bridge.cfg.default_prepend_bos = opens
    bridge.cfg.tokenizer_appends_eos = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise InputError(f"unknown dtype {dtype!r}: use one of {', '.join(known)}")
    return known[dtype]


def _quantisation(quantize: str, dtype: torch.dtype) -> Any:
    if quantize not in ("4bit", "8bit"):
        raise InputError(f"unknown quantisation {quantize!r}: use none, 4bit or 8bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"quantize {quantize} needs bitsandbytes: run `pip install bitsandbytes`")
    if not torch.cuda.is_available():
        raise InputError(f"quantize {quantize} needs a CUDA device, and there is none here")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_compute_dtype=dtype,
    )


def _checked_device(name: str) -> torch.device:
    """The device of this name, if this machine has it."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        # Every backend of torch raises a class of its own for a device that is not there.
        raise InputError(f"cannot use device {name!r}: {first_line(error)}") from error
    return device


def best_device() -> str:
    """``cuda``, ``mps`` or ``cpu``, whichever is there first."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
