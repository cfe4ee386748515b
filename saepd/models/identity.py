"""Which model it is: its weights settle that, its name is a hint."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# What a configuration tells of its file, or of a precision that is asked of the model itself.
_NOT_COMPUTED = ("transformers_version", "dtype", "torch_dtype")
# What GGUF files are called beside the model's name: how many bits they keep.
_QUANTISATION = re.compile(r"[-._](i?q\d\w*|bf16|fp?16|fp?32)(\.gguf)?$", re.IGNORECASE)
# How the hub's cache lays out a snapshot: models--owner--name/snapshots/commit.
_SNAPSHOT = re.compile(r"models--(?:[^/]+--)?(?P<name>[^/]+)/snapshots/[0-9a-f]+/?$")


def check_model(model: object) -> None:
    """Refuse what is no language model with hooks.

    Raises:
        InputError: what was given, and what would be right.
    """
    if not hasattr(model, "original_model"):
        raise InputError(
            f"a model with hooks is needed, as load_model returns it, not {type(model).__name__}"
        )


def weights_fingerprint(model: TransformerBridge | torch.nn.Module) -> str:
    """Short hash of a sample of every weight, equal for float32 and bfloat16 copies of a model.

    A bridge and the model before it was bridged have different ones, because a bridge renames
    weights and adds some; artefacts record the bridge's.
    """
    original: Any = getattr(model, "original_model", model)
    digest = hashlib.sha256()
    for name, weight in sorted(original.named_parameters()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16)
        digest.update(name.encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def settings_fingerprint(model: TransformerBridge) -> str:
    """Short hash of what is no weight but changes what a model makes of a text.

    That is its configuration, such as how far apart rotary positions turn, and how its tokenizer
    and its chat template read text.
    """
    original: Any = model.original_model
    config = {
        name: value
        for name, value in original.config.to_dict().items()
        if not name.startswith("_") and name not in _NOT_COMPUTED
    }
    tokenizer: Any = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    reads = dict(tokenizer.get_vocab()) if backend is None else json.loads(backend.to_str())
    if backend is not None:
        # Set by whoever calls it last.
        reads |= {"padding": None, "truncation": None}
    chat_template = getattr(tokenizer, "chat_template", None)
    settings = [config, reads, tokenizer.special_tokens_map, chat_template]
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_model(model: TransformerBridge, name: str | None, fingerprint: str | None = None) -> bool:
    """Whether a model is the one that an artefact was made with.

    Args:
        model: The language model at hand.
        name: What the artefact calls its model: a hub id, a folder's name, an old alias. It
            decides only where there is no fingerprint.
        fingerprint: What the artefact records as `weights_fingerprint`; equal ones settle it.
    """
    if fingerprint:
        return weights_fingerprint(model) == fingerprint
    return name is not None and same_name(name, str(model.cfg.model_name))


def same_name(one: str, other: str) -> bool:
    """Whether two names are of one model, as far as names can tell.

    Owners, spelling and quantisation do not matter, and TransformerLens' short names (gpt2-small)
    are as good as hub ids (openai-community/gpt2).
    """
    return _canonical(one) == _canonical(other)


def folder_name(folder: Path) -> str:
    """What a model in a folder is called: the hub's name where the folder is the hub's cache."""
    path = folder.resolve()
    snapshot = _SNAPSHOT.search(path.as_posix())
    return snapshot["name"] if snapshot else path.name


def _canonical(name: str) -> str:
    plain = _plain(_QUANTISATION.sub("", name))
    return _aliases().get(plain, plain)


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.rstrip("/").rsplit("/", 1)[-1].lower())
    # The hub has dropped the owner's name from these names since.
    return plain.removeprefix("meta") if plain.startswith("metallama") else plain


@cache
def _aliases() -> dict[str, str]:
    """TransformerLens' own short names, and the official name that each of them is of."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    official = {_plain(name) for name in OFFICIAL_MODEL_NAMES}
    return {
        _plain(alias): _plain(name)
        for name, aliases in MODEL_ALIASES.items()
        for alias in aliases
        if _plain(alias) not in official
    }
