"""What an SAE's configuration must hold for anything to be made of it: whole numbers and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saepd.common.errors import InputError
from saepd.common.messages import shortened

# Of which only so many latents of a token are kept, and how many where SAELens is not told.
_SPARSE, _USUAL_K = ("topk", "abstopk"), 100
_TEXTS = ("model_name", "hook_name", "hook_name_out")


def check_settings(config: Mapping[str, Any], where: object) -> None:
    """Refuse settings of another kind than SAELens writes, or that contradict each other.

    Args:
        config: The configuration in the form of SAELens 6.
        where: What messages call it, such as the path of its file.

    Raises:
        InputError: naming the setting, and what would be right.
    """
    sizes = {name: config[name] for name in ("d_in", "d_sae", "k") if name in config}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(
                f"{where}: {name} is {shortened(value)}: it must be a whole number, 1 or more"
            )
    k, d_sae = sizes.get("k", _USUAL_K), sizes.get("d_sae")
    if config.get("architecture") in _SPARSE and d_sae is not None and k > d_sae:
        raise InputError(f"{where}: k is {k}, but the SAE has {d_sae} latents: give a smaller k")
    for name in _TEXTS:
        value = (config.get("metadata") or {}).get(name)
        if not isinstance(value, str | None):
            raise InputError(f"{where}: {name} is {shortened(value)} in metadata: it must be text")
