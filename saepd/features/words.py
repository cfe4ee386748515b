"""What latents are about, in a few words, for whoever meets their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from saepd.features.index.reading import own_index
from saepd.features.lens import logit_lens, token_text, writes_residual

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_N_TOKENS = 6


def latent_words(model: TransformerBridge, sae: SAE[Any], latents: Sequence[int]) -> list[str]:
    """For each latent its label in the SAE's own index, or else the tokens that it promotes.

    Empty for latents of which neither is known.
    """
    if not latents:
        return []
    index = own_index(sae)
    if index is not None:
        return [index.page(latent).label for latent in latents]
    if not writes_residual(sae):
        return [""] * len(latents)
    promoted = logit_lens(model, sae, torch.tensor(latents, device=sae.W_dec.device), _N_TOKENS)
    return [
        "promotes " + " ".join(repr(token_text(model.tokenizer, t)) for t in tokens)
        for tokens in promoted.tolist()
    ]
