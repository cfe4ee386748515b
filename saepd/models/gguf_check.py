"""What transformers' reader of GGUF files leaves out without a word: found, and refused.

The reader takes the tensors and the metadata that it has a name for. A rotary scaling, a bias or a
way to split text that it does not know would be missing from the model.
"""

from __future__ import annotations

import math
import re
from typing import Any

from saepd.common.errors import InputError

# Ways to split text into words that are GPT-2's, which the reader uses where it knows no other.
_LIKE_GPT2 = {"default", "gpt-2", "mpt", "olmo", "jais", "trillion", "roberta-bpe"}
# The same, but that every digit stands alone: no difference where no token holds two.
_LIKE_GPT2_BUT_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"}

# Of what the reader has no place for: what the shapes of tensors prove, or what changes nothing.
_PROVED_BY_SHAPES = {
    *("vocab_size", "context_length", "attention.causal", "block_count", "embedding_length"),
    *("feed_forward_length", "expert_feed_forward_length", "expert_shared_feed_forward_length"),
}
_ROTARY = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_NEUTRAL: dict[str, Any] = {
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "attention.scale": 0.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
}


def check_tensors(reader: Any, model: Any, name: str) -> None:
    """Refuse a file whose tensors are not, number for number, the model's weights.

    Raises:
        InputError: tensors were left out, or weights are not in the file.
    """
    in_file = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    for rotary in _ROTARY:
        # No weight: check_metadata looks at it.
        in_file.pop(rotary, None)
    # A head that is the embedding is one tensor under two names.
    weights = {value.data_ptr(): value for value in model.state_dict().values()}
    in_model = sum(value.numel() for value in weights.values())
    if sum(in_file.values()) != in_model:
        left_out = [t for t in in_file if t not in _names(model)] or list(in_file)
        raise InputError(
            f"the tensors of {name} hold {sum(in_file.values())} numbers, and the model that "
            f"transformers makes of them {in_model}: it has no place for {_first(left_out)}"
        )


def check_metadata(reader: Any, config: Any, name: str) -> None:
    """Refuse a file that says something of its architecture which the reader does not take over.

    Raises:
        InputError: such a key, with its value.
    """
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    architecture = str(reader.fields["general.architecture"].contents())
    known = GGUF_CONFIG_MAPPING.get(architecture) or GGUF_CONFIG_MAPPING.get(config.model_type, {})
    rotary = getattr(config, "rope_parameters", None) or {}
    scaled = rotary.get("rope_type", "default") != "default"
    unused = {}
    for key, field in reader.fields.items():
        if not key.startswith(f"{architecture}."):
            continue
        short, value = key.removeprefix(f"{architecture}."), field.contents()
        if short in _PROVED_BY_SHAPES or known.get(short) is not None:
            continue
        if short.startswith("rope.scaling.") and scaled:
            continue
        if not (_is_neutral(short, value) or _is_in(short, value, config)):
            unused[key] = value
    if not scaled:
        unused |= {t.name: "rotary factors" for t in reader.tensors if t.name in _ROTARY}
    if unused:
        said = ", ".join(f"{key} = {value}" for key, value in list(unused.items())[:3])
        raise InputError(
            f"transformers' reader leaves out of {name}: {said}; without it, this is another "
            "model: use the original checkpoint"
        )


def check_splitting(reader: Any, name: str) -> None:
    """Refuse a file whose text is split in a way that the reader replaces by GPT-2's.

    Raises:
        InputError: such a way, by its name.
    """
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping

        splits = set(gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS)
    except (ImportError, AttributeError):
        # Releases of transformers before it knew any but GPT-2's.
        splits = set()
    kind, splitting = (reader.fields.get(f"tokenizer.ggml.{k}") for k in ("model", "pre"))
    if kind is None or kind.contents() != "gpt2" or splitting is None:
        return
    way = splitting.contents()
    if way in _LIKE_GPT2 | splits or (way in _LIKE_GPT2_BUT_DIGITS and _digits_stand_alone(reader)):
        return
    raise InputError(
        f"{name} splits text the way {way!r}, which transformers' reader does not know: use the "
        "original checkpoint, whose tokenizer does"
    )


def _is_neutral(key: str, value: Any) -> bool:
    return key in _NEUTRAL and value == _NEUTRAL[key]


def _is_in(key: str, value: Any, config: Any) -> bool:
    """Whether the configuration says the same, under whatever name."""
    if key == "attention.sliding_window_pattern" and isinstance(value, list):
        return [bool(v) for v in value] == [t == "sliding_attention" for t in config.layer_types]
    if isinstance(value, (str, list)):
        return False
    if key in ("attention.key_length", "attention.value_length"):
        return value == _head_width(config)
    if key == "rope.dimension_count":
        rotary = getattr(config, "rope_parameters", None) or {}
        share = rotary.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
        return value == int(share * _head_width(config))
    last = key.rsplit(".", 1)[-1].replace("_", "")
    said = [v for k, v in config.to_dict().items() if last in k.replace("_", "")]
    return any(math.isclose(v, value, rel_tol=1e-5) for v in said if isinstance(v, (int, float)))


def _head_width(config: Any) -> int:
    width = getattr(config, "head_dim", None)
    return width or config.hidden_size // config.num_attention_heads


def _digits_stand_alone(reader: Any) -> bool:
    """Whether no token of the vocabulary holds a digit beside anything else."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    # Special tokens (3) are not made of parts.
    return not any(
        kind != 3 and len(token) > 1 and re.search(r"\d", token)
        for token, kind in zip(tokens, kinds, strict=True)
    )


def _names(model: Any) -> set[str]:
    """Names that a model's weights have in GGUF files."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    processor = TENSOR_PROCESSORS.get(model.config.model_type, TensorProcessor)(config={})
    return set(get_gguf_hf_weights_map(model, processor))


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
