"""Let Hugging Face's own modules compute where nobody listens to the bridge's hook points.

TransformerLens' bridge wraps every module, so that hooks can see what passes. Where no hook is set,
the wrapped module gives the same numbers with less work: fused attention, and no Python around each
matrix product. Whether it does so on a given model is tried once; where it does not, the bridge's
modules stay.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from saepd.models.device import computing_dtype

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# float32 differs in the last digits with the order of sums; halves differ in the second.
_TOLERANCE = {"torch.float32": 1e-3, "torch.bfloat16": 0.25, "torch.float16": 0.05}

_Parts = list[tuple[Any, list[Any]]]
_parts_of: weakref.WeakKeyDictionary[Any, _Parts] = weakref.WeakKeyDictionary()


def try_native(model: TransformerBridge) -> None:
    """Find out, once for a model, which of its modules may run unwrapped."""
    if model not in _parts_of and not _is_equal(model):
        _parts_of[model] = []


@contextmanager
def native_modules(model: TransformerBridge) -> Iterator[None]:
    """Inside the block, modules that `try_native` found to be equal run unwrapped.

    Those with a hook on them or inside them stay wrapped.
    """
    unwrapped = []
    try:
        for part, points in _parts_of.get(model, []):
            hooked = any(p._forward_hooks or p._forward_pre_hooks for p in points)
            if not hooked and "forward" not in part.__dict__:
                part.__dict__["forward"] = part.original_component
                unwrapped.append(part)
        yield
    finally:
        for part in unwrapped:
            del part.__dict__["forward"]


def _parts(model: TransformerBridge) -> _Parts:
    """The bridge's components from the blocks on, each with all hook points in it."""
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    parts = []
    for top in [*model.blocks, model.ln_final, model.unembed]:
        for part in top.modules():
            if isinstance(part, GeneralizedComponent) and part.original_component is not None:
                points = [point for point in part.modules() if isinstance(point, HookPoint)]
                parts.append((part, points))
    return parts


def _is_equal(model: TransformerBridge) -> bool:
    """Whether the model says the same on a few tokens, wrapped or not."""
    weight: torch.Tensor = next(model.original_model.parameters())
    vocab = int(model.cfg.d_vocab)
    tokens = (torch.arange(1, 9, device=weight.device) * 977 % vocab).unsqueeze(0)
    hf_model: Any = model.original_model
    try:
        with torch.inference_mode():
            wrapped = hf_model(input_ids=tokens, use_cache=False).logits.float()
            _parts_of[model] = _parts(model)
            with native_modules(model):
                unwrapped = hf_model(input_ids=tokens, use_cache=False).logits.float()
    except Exception:
        # A module that cannot run without its wrapper raises whatever it stumbles over.
        return False
    tolerance = _TOLERANCE.get(str(computing_dtype(hf_model)), 0.0)
    return bool(((wrapped - unwrapped).abs() <= tolerance * (1 + wrapped.abs())).all())
