"""Small configurations of the causal architectures that TransformerLens' bridge has an adapter for.

What is peculiar to an architecture is in its configuration: windows of 16 tokens, blocks that
convolve or keep a state, experts, logits that are capped, projections before the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
HEADS = {**LLAMA, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
LATENT = {**LATENT, "v_head_dim": 8, "num_key_value_heads": 4}
LINEAR = {
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
ALTERNATING = ["sliding_attention", "full_attention"] * 2


def tokenizer() -> Any:
    """One token a byte, and three special tokens."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_level = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=byte_level, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def _config(kind: type[Any], *parts: dict[str, Any], **others: Any) -> Callable[[Any], Any]:
    def config(tok: Any) -> Any:
        ids = {"vocab_size": len(tok), "bos_token_id": tok.bos_token_id}
        ids |= {"eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id}
        settings = ids
        for part in parts:
            settings = {**settings, **part}
        return kind(**settings, **others)

    return config


_GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}

CONFIGS: dict[str, Callable[[Any], Any]] = {
    "AFMoE": _config(hf.AfmoeConfig, HEADS, EXPERTS, num_experts=4, sliding_window=16),
    "Apertus": _config(hf.ApertusConfig, LLAMA),
    "Arcee": _config(hf.ArceeConfig, LLAMA),
    "Bamba": _config(hf.BambaConfig, LLAMA, MAMBA, attn_layer_indices=[1, 3]),
    "BitNet": _config(hf.BitNetConfig, LLAMA),
    "BLOOM": _config(hf.BloomConfig, hidden_size=32, n_layer=4, n_head=4),
    "CodeGen": _config(hf.CodeGenConfig, _GPT2, rotary_dim=8),
    "Cohere": _config(hf.CohereConfig, LLAMA),
    "Cohere 2": _config(hf.Cohere2Config, LLAMA, sliding_window=16, layer_types=ALTERNATING),
    "DeepSeek-V2": _config(
        hf.DeepseekV2Config,
        LLAMA,
        LATENT,
        EXPERTS,
        n_routed_experts=4,
        first_k_dense_replace=1,
        topk_method="greedy",
        n_group=1,
        topk_group=1,
    ),
    "DeepSeek-V3": _config(
        hf.DeepseekV3Config,
        LLAMA,
        LATENT,
        EXPERTS,
        n_routed_experts=4,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    ),
    "ERNIE 4.5": _config(hf.Ernie4_5Config, HEADS),
    "ERNIE 4.5 MoE": _config(
        hf.Ernie4_5_MoeConfig, LLAMA, moe_num_experts=4, moe_k=2, moe_intermediate_size=32
    ),
    "EXAONE 4": _config(hf.Exaone4Config, LLAMA, sliding_window=16, sliding_window_pattern=2),
    "Falcon, multi-query": _config(hf.FalconConfig, SIZES),
    "Falcon, new decoder": _config(
        hf.FalconConfig, SIZES, new_decoder_architecture=True, num_kv_heads=2
    ),
    "Falcon, ALiBi": _config(
        hf.FalconConfig, SIZES, alibi=True, multi_query=False, parallel_attn=False, bias=True
    ),
    "Falcon-H1": _config(hf.FalconH1Config, LLAMA, MAMBA, mamba_d_ssm=64),
    "Falcon Mamba": _config(
        hf.FalconMambaConfig, hidden_size=32, num_hidden_layers=4, state_size=8
    ),
    "FlexOlmo": _config(hf.FlexOlmoConfig, LLAMA, num_experts=4, num_experts_per_tok=2),
    "Gemma": _config(hf.GemmaConfig, HEADS),
    "Gemma 2": _config(hf.Gemma2Config, HEADS, sliding_window=16, query_pre_attn_scalar=8),
    "Gemma 3": _config(
        hf.Gemma3TextConfig,
        HEADS,
        sliding_window=16,
        query_pre_attn_scalar=8,
        layer_types=ALTERNATING,
    ),
    "Gemma 4": _config(
        hf.Gemma4TextConfig,
        HEADS,
        sliding_window=16,
        layer_types=ALTERNATING,
        vocab_size_per_layer_input=300,
        hidden_size_per_layer_input=8,
        global_head_dim=8,
    ),
    "GLM": _config(hf.GlmConfig, HEADS),
    "GLM 4": _config(hf.Glm4Config, HEADS),
    "GLM 4 MoE": _config(hf.Glm4MoeConfig, HEADS, EXPERTS, n_routed_experts=4),
    "GLM 4 MoE Lite": _config(hf.Glm4MoeLiteConfig, LLAMA, LATENT, EXPERTS, n_routed_experts=4),
    "GLM MoE DSA": _config(
        hf.GlmMoeDsaConfig,
        LLAMA,
        LATENT,
        EXPERTS,
        n_routed_experts=4,
        index_head_dim=8,
        index_n_heads=2,
        index_topk=8,
    ),
    "GPT-2": _config(hf.GPT2Config, _GPT2),
    "GPT-BigCode": _config(hf.GPTBigCodeConfig, _GPT2),
    "GPT-Neo": _config(
        hf.GPTNeoConfig,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        max_position_embeddings=512,
        attention_types=[[["global", "local"], 2]],
        window_size=16,
    ),
    "GPT-NeoX": _config(hf.GPTNeoXConfig, SIZES, intermediate_size=64),
    "GPT-J": _config(hf.GPTJConfig, _GPT2, rotary_dim=8),
    "gpt-oss": _config(hf.GptOssConfig, HEADS, sliding_window=16, num_local_experts=4),
    "Granite": _config(hf.GraniteConfig, LLAMA),
    "Granite MoE": _config(hf.GraniteMoeConfig, LLAMA, num_local_experts=4),
    "Granite 4 hybrid": _config(
        hf.GraniteMoeHybridConfig,
        LLAMA,
        MAMBA,
        layer_types=["mamba", "mamba", "attention", "mamba"],
        num_local_experts=0,
        shared_intermediate_size=64,
        position_embedding_type="rope",
    ),
    "HRM": _config(hf.HrmTextConfig, LLAMA),
    "Hunyuan": _config(hf.HunYuanDenseV1Config, HEADS),
    "IQuest-Coder (Llama)": _config(hf.LlamaConfig, HEADS, attention_bias=True, mlp_bias=True),
    "Jais 2": _config(hf.Jais2Config, LLAMA),
    "Jamba": _config(
        hf.JambaConfig,
        LLAMA,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        use_mamba_kernels=False,
        mamba_d_state=8,
    ),
    "JetMoE": _config(hf.JetMoeConfig, LLAMA, num_local_experts=4, kv_channels=8),
    "Laguna": _config(hf.LagunaConfig, HEADS, EXPERTS, num_experts=4, sliding_window=16),
    "LFM2": _config(hf.Lfm2Config, LLAMA, layer_types=["conv", "conv", "full_attention", "conv"]),
    "LFM2 MoE": _config(
        hf.Lfm2MoeConfig,
        LLAMA,
        EXPERTS,
        layer_types=["conv", "conv", "full_attention", "conv"],
        num_experts=4,
        num_dense_layers=1,
    ),
    "Llama": _config(hf.LlamaConfig, LLAMA),
    "Llama 3, scaled rotary": _config(
        hf.LlamaConfig,
        LLAMA,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "Llama 4": _config(
        hf.Llama4TextConfig,
        HEADS,
        intermediate_size_mlp=64,
        num_local_experts=2,
        attention_chunk_size=16,
    ),
    "Mamba": _config(hf.MambaConfig, hidden_size=32, num_hidden_layers=4, state_size=8),
    "Mamba 2": _config(
        hf.Mamba2Config,
        hidden_size=32,
        num_hidden_layers=4,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=2,
    ),
    "MiniMax-M2": _config(hf.MiniMaxM2Config, HEADS, num_local_experts=4, num_experts_per_tok=2),
    "Ministral 3": _config(hf.Ministral3Config, HEADS),
    "Mistral": _config(hf.MistralConfig, LLAMA, sliding_window=16),
    "Mixtral": _config(hf.MixtralConfig, LLAMA, num_local_experts=4),
    "ModernBERT decoder": _config(
        hf.ModernBertDecoderConfig, SIZES, intermediate_size=64, local_attention=16
    ),
    "MPT": _config(hf.MptConfig, d_model=32, n_layers=4, n_heads=4, max_seq_len=512),
    "NanoChat": _config(hf.NanoChatConfig, LLAMA),
    "Nemotron": _config(hf.NemotronConfig, LLAMA),
    "Nemotron-H": _config(
        hf.NemotronHConfig,
        HEADS,
        EXPERTS,
        n_routed_experts=4,
        layers_block_type=["mamba", "attention", "moe", "mamba"],
        ssm_state_size=8,
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=2,
        moe_shared_expert_intermediate_size=32,
    ),
    "OLMo": _config(hf.OlmoConfig, LLAMA),
    "OLMo 2": _config(hf.Olmo2Config, LLAMA),
    "OLMo 3": _config(hf.Olmo3Config, LLAMA, sliding_window=16),
    "OLMo hybrid": _config(hf.OlmoHybridConfig, LLAMA, LINEAR),
    "OLMoE": _config(hf.OlmoeConfig, LLAMA, num_experts=4, num_experts_per_tok=2),
    "OpenAI GPT": _config(hf.OpenAIGPTConfig, _GPT2),
    "OPT": _config(hf.OPTConfig, SIZES, ffn_dim=64, word_embed_proj_dim=32),
    "OPT, normalised after, projected": _config(
        hf.OPTConfig, SIZES, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False
    ),
    "Phi": _config(hf.PhiConfig, LLAMA),
    "Phi-3": _config(hf.Phi3Config, LLAMA, sliding_window=16),
    "Phi-3.5 MoE": _config(hf.PhimoeConfig, LLAMA, num_local_experts=4),
    "Qwen 2": _config(hf.Qwen2Config, LLAMA),
    "Qwen 2, windows": _config(
        hf.Qwen2Config, LLAMA, use_sliding_window=True, sliding_window=16, max_window_layers=2
    ),
    "Qwen 2 MoE": _config(
        hf.Qwen2MoeConfig, LLAMA, EXPERTS, num_experts=4, shared_expert_intermediate_size=32
    ),
    "Qwen 3": _config(hf.Qwen3Config, HEADS),
    "Qwen 3 MoE": _config(hf.Qwen3MoeConfig, HEADS, EXPERTS, num_experts=4),
    "Qwen 3 Next": _config(
        hf.Qwen3NextConfig,
        HEADS,
        LINEAR,
        EXPERTS,
        num_experts=4,
        shared_expert_intermediate_size=32,
    ),
    "Qwen 3.5": _config(hf.Qwen3_5TextConfig, HEADS, LINEAR),
    "Qwen 3.5 MoE": _config(
        hf.Qwen3_5MoeTextConfig,
        HEADS,
        LINEAR,
        EXPERTS,
        num_experts=4,
        shared_expert_intermediate_size=32,
    ),
    "RecurrentGemma": _config(
        hf.RecurrentGemmaConfig,
        LLAMA,
        lru_width=32,
        attention_window_size=16,
        block_types=["recurrent", "attention"],
    ),
    "RWKV": _config(
        hf.RwkvConfig,
        hidden_size=32,
        num_hidden_layers=4,
        attention_hidden_size=32,
        context_length=512,
    ),
    "Seed-OSS": _config(hf.SeedOssConfig, HEADS),
    "SmolLM 3": _config(hf.SmolLM3Config, LLAMA),
    "StableLM": _config(hf.StableLmConfig, LLAMA),
    "StarCoder 2": _config(hf.Starcoder2Config, LLAMA, sliding_window=16),
    "VaultGemma": _config(hf.VaultGemmaConfig, HEADS, sliding_window=16, query_pre_attn_scalar=8),
    "XGLM": _config(hf.XGLMConfig, d_model=32, num_layers=4, attention_heads=4, ffn_dim=64),
    "Youtu": _config(hf.YoutuConfig, LLAMA, LATENT),
    "Zamba 2": _config(
        hf.Zamba2Config,
        LLAMA,
        mamba_d_state=8,
        n_mamba_heads=8,
        mamba_headdim=8,
        mamba_ngroups=2,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        attention_head_dim=16,
        use_mem_rope=True,
    ),
}
