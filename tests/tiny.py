"""Tiny random models with a real tokenizer, in the four architectures the engine is tested on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2")
D_MODEL = 32
N_LAYERS = 4
SITE = "blocks.1.hook_resid_post"

_CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tiny_tokenizer(
    *, opens: bool = True, merges: Sequence[tuple[str, str]] = ()
) -> transformers.PreTrainedTokenizerFast:
    """Byte-level: one token a byte but for the merges asked for, and three special tokens.

    Args:
        opens: Put the beginning of text in front, as Llama's and Gemma's tokenizers do.
        merges: Pairs of characters that are one token, in the byte-level alphabet (a blank is Ġ).
    """
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
    )
    fast.chat_template = _CHAT
    if opens:
        fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", fast.bos_token_id)]
        )
    return fast


def save_tiny_model(
    architecture: str,
    folder: Path,
    seed: int = 0,
    *,
    n_layers: int = N_LAYERS,
    n_positions: int = 256,
) -> Path:
    """A random model of the architecture in the Hugging Face folder layout.

    Of the four, those whose real tokenizers put a beginning in front of texts do so here.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(opens=architecture in ("llama", "gemma2"))
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": D_MODEL,
        "intermediate_size": 64,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": n_positions,
        **ids,
    }
    if architecture == "llama":
        config = transformers.LlamaConfig(**common)
    elif architecture == "qwen2":
        config = transformers.Qwen2Config(**common)
    elif architecture == "gemma2":
        config = transformers.Gemma2Config(
            **common, head_dim=8, query_pre_attn_scalar=8, sliding_window=16
        )
    elif architecture == "mistral":
        config = transformers.MistralConfig(**common, head_dim=8, sliding_window=120)
    elif architecture == "cohere":
        config = transformers.CohereConfig(**common)
    elif architecture == "deepseek_v3":
        config = transformers.DeepseekV3Config(
            **(common | {"num_key_value_heads": 4}),
            q_lora_rank=None,
            kv_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=8,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=16,
            first_k_dense_replace=3,
        )
    else:
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=n_layers,
            n_head=4,
            n_positions=n_positions,
            **ids,
        )
    return save_random(config, tokenizer, folder)


def save_random(config: Any, tokenizer: Any, folder: Path) -> Path:
    """A model of random weights that finds some tokens likelier than others."""
    model = transformers.AutoModelForCausalLM.from_config(config)
    # The default initialisation is so small that every next-token distribution is nearly flat.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_sae(
    folder: Path,
    architecture: str = "standard",
    *,
    d_in: int = D_MODEL,
    hook_name: str = SITE,
    model_name: str = "model",
    dtype: str = "float32",
) -> Path:
    """An SAE that reconstructs exactly: latent 2i is +x_i where positive, 2i+1 is -x_i."""
    eye = torch.eye(d_in)
    decoder = torch.stack([eye, -eye], dim=1).reshape(2 * d_in, d_in)
    zeros = torch.zeros(2 * d_in)
    weights = {"W_enc": decoder.T.contiguous(), "W_dec": decoder, "b_dec": torch.zeros(d_in)}
    extra: dict[str, Any] = {}
    if architecture == "gated":
        weights |= {"b_gate": zeros, "b_mag": zeros.clone(), "r_mag": zeros.clone()}
    else:
        weights["b_enc"] = zeros
    if architecture == "jumprelu":
        weights["threshold"] = zeros.clone()
    if architecture == "topk":
        extra["k"] = d_in
    config = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": 2 * d_in,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.0",
            "model_name": model_name,
            "hook_name": hook_name,
        },
        **extra,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    to = getattr(torch, dtype)
    save_file({k: v.to(to) for k, v in weights.items()}, folder / "sae_weights.safetensors")
    return folder


# Columns of a sweep's table that do not depend on where and when it ran.
SAME = ["key", "status", "block", "k", "coefficient", "operator", "gain", "gain_low", "gain_high"]
SAME += ["js_distance", "own_gain", "kl_to_base", "gain/north", "gain/south"]
