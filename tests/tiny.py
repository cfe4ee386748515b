"""Tiny random models with a real tokenizer, in the four architectures the engine is tested on."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2")
D_MODEL = 32
N_LAYERS = 4
SITE = "blocks.1.hook_resid_post"

_CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level, no merges: one token a byte, and three special tokens."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
    )
    fast.chat_template = _CHAT
    return fast


def save_tiny_model(architecture: str, folder: Path, seed: int = 0) -> Path:
    """A random model of the architecture in the Hugging Face folder layout."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": D_MODEL,
        "intermediate_size": 64,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
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
    else:
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=N_LAYERS, n_head=4, n_positions=256, **ids
        )
    model = transformers.AutoModelForCausalLM.from_config(config)
    # The default initialisation is so small that every next-token distribution is nearly flat.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
