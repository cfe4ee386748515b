"""Which tokens a latent's decoder row promotes, read without the blocks in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.directions.edits import decoder_rows
from saepd.saes.abilities import WRITABLE_SITE
from saepd.saes.load import written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


def writes_residual(sae: SAE[Any]) -> bool:
    """Whether an SAE's latents write into the residual stream, so that tokens can be read."""
    return bool(WRITABLE_SITE.fullmatch(written_site(sae)))


def logit_lens(
    model: TransformerBridge,
    sae: SAE[Any],
    latents: Int[Tensor, " k"],
    n_tokens: int = 10,
    *,
    lowers: bool = False,
) -> Int[Tensor, "k n_tokens"]:
    """Ids of the tokens whose logits each decoder row raises most, or lowers most.

    The row is scaled by the final norm's gain and read through the unembedding, without the
    blocks in between (the logit lens; nostalgebraist 2020).
    """
    with torch.no_grad():
        rows = _read_rows(model, sae, latents)
        return (rows @ model.W_U.float()).topk(n_tokens, dim=-1, largest=not lowers).indices.cpu()


def direct_effects(
    model: TransformerBridge, sae: SAE[Any], latents: Int[Tensor, " k"], token: int, other: int
) -> Float[Tensor, " k"]:
    """How much one unit of each latent raises the logit of one token over another's.

    Read as `logit_lens` reads it, without the blocks in between and without the division by the
    final norm's scale: what the latents of one direction do can be compared with each other.
    """
    with torch.no_grad():
        W_U = model.W_U.float()
        return (_read_rows(model, sae, latents) @ (W_U[:, token] - W_U[:, other])).cpu()


def _read_rows(
    model: TransformerBridge, sae: SAE[Any], latents: Int[Tensor, " k"]
) -> Float[Tensor, "k d_model"]:
    """Decoder rows as the unembedding would read them: through the final norm's gain."""
    with torch.no_grad():
        W_U = model.W_U
        rows = decoder_rows(sae, latents).to(W_U.device)
        if model.cfg.normalization_type in ("LN", "LNPre"):
            # LayerNorm takes the mean off whatever is written.
            rows = rows - rows.mean(-1, keepdim=True)
        gain = _final_gain(model)
        return rows if gain is None else rows * gain


def _final_gain(model: TransformerBridge) -> Float[Tensor, " d_model"] | None:
    """What the final norm multiplies each dimension by; None where it has no gain.

    Some families (Gemma, Nemotron) store it as its distance from one, and not even all norms of
    one family do the same, so the norm itself says which: at a vector of ones and minus ones,
    which it leaves as they are, half the difference to its mirror image is the gain.
    """
    weight = getattr(model.ln_final, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return None
    signs = torch.ones_like(weight)
    signs[1::2] = -1
    forth, back = model.ln_final(torch.stack([signs, -signs]).unsqueeze(0))[0].float()
    gain = (forth - back) * signs.float() / 2
    weight = weight.float()
    return min(weight, weight + 1, key=lambda stored: float((stored - gain).abs().sum()))


def token_text(tokenizer: Any, token: int) -> str:
    """A token as it stands in running text: some tokenizers drop a first token's blank."""
    before = tokenizer("a", add_special_tokens=False).input_ids
    return tokenizer.decode([*before, token])[len(tokenizer.decode(before)) :]
