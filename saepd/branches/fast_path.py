"""Prove, once for a model, that the fast path gives what one text after the other gives.

The fast path shares work between branches, prompts and texts: padding, columns side by side, one
cache. Not every architecture bears that. So before a model is first branched, a few tokens run both
ways (`saepd.branches.engine.reference`); where the two differ, or the fast path fails, the model
runs on the reference from then on, and that is said once. Texts longer than a window of the model
are proven when the first one comes. Verdicts are kept by the weights' fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import weakref
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saepd.branches.engine.native import try_native
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reference import ReferencePack, whole_log_probs
from saepd.branches.fast_path_probes import (
    long_probes,
    probe_tokens,
    run_reference,
    short_probes,
)
from saepd.common.errors import InputError, first_line
from saepd.common.files import write_json
from saepd.directions.sites import check_blocks
from saepd.models.batching import is_out_of_memory
from saepd.models.cache import cache_dir
from saepd.models.device import computing_dtype
from saepd.models.identity import weights_fingerprint
from saepd.models.windows import attention_windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# How far log-probs (nats) may differ, on top of the same share of their size. Halves differ in the
# second digit with the order of sums alone.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}

_verdicts: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


def pack_kind(model: TransformerBridge, longest: int) -> type[Pack] | type[ReferencePack]:
    """How prompts of a model are captured and run: fast where that is proven.

    Args:
        model: The language model.
        longest: Columns of the longest prompt, with all texts that may follow it side by side.
    """
    return Pack if is_proven(model, longest) else ReferencePack


def is_proven(model: TransformerBridge, longest: int) -> bool:
    """Whether the fast path may run texts of so many tokens on this model.

    Raises:
        InputError: even the reference cannot run the model.
    """
    check_blocks(model)
    try_native(model)
    window = min(attention_windows(model.original_model), default=None)
    kinds = ["short"] if window is None or longest <= window else ["short", "long"]
    verdicts = _verdicts.setdefault(model, {})
    for kind in kinds:
        if kind not in verdicts:
            verdicts[kind] = _remembered(model, kind)
            if verdicts[kind]:
                name = model.cfg.model_name
                where = "" if kind == "short" else f" on texts longer than its window of {window}"
                warnings.warn(
                    f"{name}: branches run one after the other, slowly{where}, since the fast path "
                    f"does not fit this model: {verdicts[kind]}",
                    stacklevel=2,
                )
        if verdicts[kind]:
            return False
    return True


def _remembered(model: TransformerBridge, kind: str) -> str:
    """Why the fast path does not fit, or nothing; read from the cache, or found out and kept."""
    file = cache_dir() / "branch-proofs" / f"{_key(model)}-{kind}.json"
    try:
        return str(json.loads(file.read_text())["differs"])
    except (OSError, ValueError, KeyError, TypeError):
        differs = _difference(model, kind)
    # A cache that cannot be written costs a second at the next start, and nothing else.
    with suppress(OSError):
        write_json(file, {"model": model.cfg.model_name, "differs": differs})
    return differs


def _key(model: TransformerBridge) -> str:
    hf_model: Any = model.original_model
    weight = next(hf_model.parameters())
    what = [weights_fingerprint(model), hf_model.config.to_json_string(), str(weight.dtype)]
    what += [weight.device.type, str(hf_model.config._attn_implementation), _code()]
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:24]


@cache
def _code() -> str:
    """What a verdict holds for: the versions of what runs the model, and this engine itself."""
    names = ("torch", "transformers", "transformer-lens")
    digest = hashlib.sha256(" ".join(map(version, names)).encode())
    here = Path(__file__).parent
    for file in sorted([*here.glob("fast_path*.py"), *(here / "engine").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _difference(model: TransformerBridge, kind: str) -> str:
    """Run the probes both ways; says how they differ, or nothing."""
    tolerance = _TOLERANCE.get(computing_dtype(model.original_model), 1e-4)
    if kind == "short":
        _check_causal(model)
    probes = short_probes(model) if kind == "short" else long_probes(model)
    for name, fast, reference in probes:
        right = run_reference(reference, model)
        try:
            outputs = fast()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"{name}: {type(error).__name__}: {first_line(error)}"
        for one, other in zip(outputs, right, strict=True):
            off = (one - other).abs()
            if not bool((off <= tolerance * (1 + other.abs())).all()):
                return f"{name}: off by {float(off.max()):.2g} nats"
    return ""


def _check_causal(model: TransformerBridge) -> None:
    """Refuse models that, whole and alone, read a token in the light of later ones.

    Raises:
        InputError: what such a model says of a prompt depends on what is written behind it.
    """
    tokens, plan = probe_tokens(model, 24), Plan(model, [])
    tolerance = _TOLERANCE.get(computing_dtype(model.original_model), 1e-4)

    def both() -> list[Tensor]:
        with torch.inference_mode():
            return [whole_log_probs(plan, tokens[:n], 16)[0, 0] for n in (16, 24)]

    alone, followed = run_reference(both, model)
    if not bool(((alone - followed).abs() <= tolerance * (1 + alone.abs())).all()):
        raise InputError(
            f"{model.cfg.model_name} is not causal: what it says after a prompt changes with what "
            "is written behind it, so no answer can be scored"
        )
