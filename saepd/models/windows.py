"""Windows of attention: how far back blocks look, where that is not to a text's beginning."""

from __future__ import annotations

from typing import Any

# What configurations call it: Mistral and its kin, GPT-Neo, Llama 4, RecurrentGemma.
_NAMES = (
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_chunk_size",
    "attention_window_size",
)


def attention_windows(hf_model: Any) -> list[int]:
    """How many tokens back blocks of a model look at most; empty where all of them see everything.

    Args:
        hf_model: The model as transformers loads it.
    """
    config = hf_model.config.get_text_config()
    windows = (getattr(config, name, None) for name in _NAMES)
    return [window for window in windows if isinstance(window, int) and window > 0]
