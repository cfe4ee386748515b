"""What a dictionary is worth, measured on text it was not trained on.

Reconstruction is measured at the positions that count in training. The others (the first, special
tokens, the chat template's opening) keep their original activation when the model runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.saes.activations import is_sink, site_activations
from saepd.saes.corpus import Context, template_opening
from saepd.saes.fits import explained_variance
from saepd.saes.load import sae_fingerprint, sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

DENSE_RATE = 0.1

_CHUNK_ROWS = 4096
_MAX_TEXT_TOKENS = 512


def measure_sae(
    model: TransformerBridge,
    sae: SAE[Any],
    held_out: Sequence[Context],
    extra: Mapping[str, Sequence[str]],
    *,
    rows: Float[Tensor, "n d_in"] | None = None,
) -> dict[str, Any]:
    """Reconstruction, sparsity, and what the model loses when it runs on reconstructions.

    Args:
        model: The model in float32; cross-entropies differ in the third digit in bfloat16.
        sae: An inference SAE on a residual site of the model.
        held_out: Contexts the SAE was not trained on. Explained variance and L0 are reported per
            kind of context, cross-entropy over all.
        extra: Further texts by name, for explained variance and L0 only.
        rows: Activations on which to count how often each latent fires; many are needed to call a
            rare latent dead. The held-out ones if None.

    Returns:
        A JSON-able card: shares between 0 and 1, cross-entropies in nats a token.

    Raises:
        InputError: no held-out contexts, or a set of texts with no position that counts.
    """
    if not held_out:
        raise InputError("there is no held-out text to measure the SAE on: give at least one")
    site = sae_hook_name(sae)
    by_name: dict[str, list[Context]] = {}
    for context in held_out:
        by_name.setdefault(context.kind, []).append(context)
    for name, texts in extra.items():
        if name in by_name:
            raise InputError(f"the card has texts called {name!r} already: give yours another name")
        by_name[name] = [_text_context(model.tokenizer, text, name) for text in texts]
    kept = {name: _without_sinks(model, site, group) for name, group in by_name.items()}
    sets = {name: _reconstruction(sae, x) for name, (_, x) in kept.items()}
    held_x = torch.cat([x for name, (_, x) in kept.items() if name not in extra])
    counted_in = [c for name, (group, _) in kept.items() if name not in extra for c in group]
    counted = held_x if rows is None else rows
    rates = firing_rates(sae, counted)
    return {
        "hook_name": site,
        "model_name": sae.cfg.metadata.model_name,
        "architecture": sae.cfg.architecture(),
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "fingerprint": sae_fingerprint(sae),
        "sets": sets,
        "extra_sets": sorted(extra),
        "cross_entropy": _cross_entropy(model, sae, site, counted_in, held_x.mean(0)),
        "latents": {
            "rows": len(counted),
            "dead_share": float((rates == 0).float().mean()),
            "dense_share": float((rates > DENSE_RATE).float().mean()),
        },
    }


def firing_rates(sae: SAE[Any], rows: Float[Tensor, "n d_in"]) -> Float[Tensor, " d_sae"]:
    """Share of the rows at which each latent is active."""
    fired = torch.zeros(sae.cfg.d_sae)
    for x in rows.split(_CHUNK_ROWS):
        fired += (sae.encode(x.to(sae.device)) != 0).sum(0).cpu()
    return fired / len(rows)


def _without_sinks(
    model: TransformerBridge, site: str, group: list[Context]
) -> tuple[list[Context], Float[Tensor, "n d_in"]]:
    """The contexts, their sinks no longer counted, and what the site holds where they count."""
    group = [context for context in group if any(context.keep)]
    if not group:
        raise InputError("one of the sets of texts has no position that counts: give longer texts")
    x = site_activations(model, group, [site])[site]
    kept = ~is_sink({site: x})
    counted = []
    for context, kept_rows in zip(group, kept.split([sum(c.keep) for c in group]), strict=True):
        still = iter(kept_rows.tolist())
        counted.append(replace(context, keep=[keep and next(still) for keep in context.keep]))
    return counted, x[kept]


def _text_context(tokenizer: Any, text: str, name: str) -> Context:
    """A text as a context, with the positions counted as in training."""
    special = set(tokenizer.all_special_ids)
    # A text that already opens with a special token (a rendered chat) must not get a second one.
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    skipped = 1
    if tokenizer.chat_template and tokens and tokens[0] in special:
        skipped = max(1, template_opening(tokenizer))
    else:
        tokens = tokenizer(text).input_ids
    tokens = tokens[:_MAX_TEXT_TOKENS]
    return Context(tokens, [i >= skipped and t not in special for i, t in enumerate(tokens)], name)


def _reconstruction(sae: SAE[Any], x: Tensor) -> dict[str, float]:
    x_hat, active = [], 0
    for chunk in x.split(_CHUNK_ROWS):
        latents = sae.encode(chunk.to(sae.device))
        active += int((latents != 0).sum())
        x_hat.append(sae.decode(latents).cpu())
    return {
        "explained_variance": explained_variance(x, torch.cat(x_hat)),
        "l0": active / len(x),
        "positions": len(x),
    }


def _cross_entropy(
    model: TransformerBridge,
    sae: SAE[Any],
    site: str,
    held_out: Sequence[Context],
    mean: Tensor,
) -> dict[str, float]:
    """Next-token loss after counted positions, with those positions replaced in four ways."""
    edits: dict[str, Callable[[Tensor], Tensor]] = {
        "base": lambda x: x,
        "sae": lambda x: sae(x.to(sae.device)).to(x),
        "zero": torch.zeros_like,
        "mean": lambda x: mean.to(x).expand_as(x),
    }
    total = dict.fromkeys(edits, 0.0)
    positions = 0
    for context in held_out:
        for name, edit in edits.items():
            total[name] += _loss(model, site, context, edit)
        positions += sum(context.keep[:-1])
    nats = {name: value / positions for name, value in total.items()}
    recovered = {
        f"recovered_from_{ablation}": (nats[ablation] - nats["sae"])
        / (nats[ablation] - nats["base"])
        for ablation in ("zero", "mean")
    }
    return {**nats, **recovered, "positions": positions}


def _loss(
    model: TransformerBridge,
    site: str,
    context: Context,
    edit: Callable[[Tensor], Tensor],
) -> float:
    """Summed nats at the tokens after counted positions, the edit applied at those positions."""
    device = next(model.original_model.parameters()).device
    tokens = torch.tensor([context.tokens], device=device)
    keep = torch.tensor(context.keep)

    def edited_at_kept(value: Tensor, hook: object) -> Tensor:
        edited = value.clone()
        edited[0, keep] = edit(value[0, keep])
        return edited

    with torch.inference_mode():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(site, edited_at_kept)])
    losses = torch.nn.functional.cross_entropy(
        logits[0, :-1].float(), tokens[0, 1:].to(logits.device), reduction="none"
    )
    return float(losses.cpu()[keep[:-1]].sum())
