"""Whether what was loaded is the whole checkpoint, and nothing but it.

transformers fills weights that a checkpoint lacks with random numbers, and drops those that it has
no place for. Both give another model, at times another one at every load.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError, first_line

# Other senses than text, heads that guess tokens ahead, and tables that are computed anew.
_NOT_NEEDED = re.compile(
    r"(^|\.)(vision\w*|visual\w*|image\w*|audio\w*|speech\w*|multi_modal\w*|mm_\w*|mtp\w*)\."
    r"|rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$|position_ids$"
)
_FLOATING = {"F64", "F32", "F16", "BF16"}
_SHOWN = 3


def check_complete(loading_info: dict[str, Any], name: str) -> None:
    """Refuse a model whose weights are not those of its checkpoint.

    Args:
        loading_info: What ``from_pretrained(..., output_loading_info=True)`` gives beside the
            model: the names of weights that were missing, unexpected, or of another shape.
        name: The model, for the message.

    Raises:
        InputError: weights were filled with random numbers, or dropped.
    """
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise InputError(
            f"the checkpoint of {name} lacks {_listed(missing)}, and random numbers would take "
            "their place: get the whole checkpoint"
        )
    mismatched = sorted(str(key[0]) for key in loading_info["mismatched_keys"])
    if mismatched:
        raise InputError(
            f"the checkpoint of {name} holds {_listed(mismatched)} in another shape than its "
            "config.json says: one of the two belongs to another model"
        )
    unexpected = sorted(k for k in loading_info["unexpected_keys"] if not _NOT_NEEDED.search(k))
    if unexpected:
        raise InputError(
            f"the checkpoint of {name} holds {_listed(unexpected)}, for which its config.json has "
            "no place: without them it is another model"
        )


def check_unquantised(folder: Path, config: Any, name: str) -> None:
    """Refuse weights that are stored as codes, which transformers may read as if they were values.

    Args:
        folder: Where the checkpoint's files are; looked into if it is a local folder.
        config: The model's transformers configuration.
        name: The model, for the message.

    Raises:
        InputError: the configuration says that the weights are quantised, or the files show it.
    """
    settings = getattr(config, "quantization_config", None)
    if settings:
        known = settings if isinstance(settings, dict) else settings.to_dict()
        raise InputError(
            f"the weights of {name} are quantised ({known.get('quant_method', 'unnamed')}), and "
            "hooks need them as numbers: use the checkpoint before quantisation, or a GGUF"
        )
    codes = sorted(_codes(folder))
    if codes:
        raise InputError(
            f"the checkpoint of {name} holds {_listed(codes)} as codes, and its config.json does "
            "not say how to read them: use the checkpoint before quantisation, or a GGUF"
        )


def _codes(folder: Path) -> list[str]:
    """Weights of a folder's safetensors files that are not floating-point numbers."""
    from safetensors import SafetensorError, safe_open

    codes = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                names = [k for k in file.keys() if k.endswith("weight")]  # noqa: SIM118
                codes += [k for k in names if file.get_slice(k).get_dtype() not in _FLOATING]
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} is no readable safetensors file: {first_line(error)}"
            ) from error
    return codes


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    more = len(names) - _SHOWN
    count = "a weight" if len(names) == 1 else f"{len(names)} weights"
    return f"{count} ({shown}{f' and {more} more' if more > 0 else ''})"
