"""Whether pushing a latent raises the tokens that its decoder row promotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.branches.run import branch
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, decoder_rows
from saepd.features.lens import logit_lens
from saepd.models.sites import SiteBatch, read_site
from saepd.models.tokens import prompt_ids
from saepd.saes.load import written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


def output_scores(
    model: TransformerBridge,
    sae: SAE[Any],
    latents: Int[Tensor, " k"],
    *,
    amplitude: float = 1.0,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
) -> Float[Tensor, " k"]:
    """Does pushing a latent raise the tokens its decoder row promotes? (Arad et al. 2505.20063)

    S = P(steered) - P(base), with P = (1 - rank / |V|) * p: the best rank and the highest
    probability that any of the latent's ten logit-lens tokens has as the next token of neutral
    prompts, averaged over them. All latents run as branches of one pass.

    Args:
        model: The language model.
        sae: The dictionary.
        latents: Ids of the latents that are scored.
        amplitude: What is added, as a multiple of the residual's mean norm over the prompts.
        prompts: Neutral texts.

    Returns:
        Scores between -1 and 1.
    """
    hook_name = written_site(sae)
    tokens = logit_lens(model, sae, latents)
    rows = decoder_rows(sae, latents)
    size = amplitude * _mean_residual_norm(model, hook_name, prompts)
    directions = [
        Direction(f"latent {int(latent)}", hook_name, AddVector(size * row / row.norm()))
        for latent, row in zip(latents, rows, strict=True)
    ]
    log_probs = branch(model, prompts, directions)
    promoted = tokens.unsqueeze(0).expand(len(prompts), -1, -1)

    def presence(rows: torch.Tensor) -> torch.Tensor:
        probabilities = rows.gather(-1, promoted).amax(-1)
        rank = (rows > probabilities.unsqueeze(-1)).sum(-1)
        return ((1 - rank / rows.shape[-1]) * probabilities.exp()).mean(0)

    base = log_probs[:, :1].expand(-1, len(latents), -1)
    return presence(log_probs[:, 1:]) - presence(base)


def _mean_residual_norm(model: TransformerBridge, hook_name: str, prompts: Sequence[str]) -> float:
    rows = [prompt_ids(model.tokenizer, prompt) for prompt in prompts]

    def last_norms(batch: SiteBatch) -> list[float]:
        return batch.held[hook_name][:, -1].float().norm(dim=-1).tolist()

    norms = read_site(model, [hook_name], rows, last_norms)
    return sum(norms) / len(norms)
