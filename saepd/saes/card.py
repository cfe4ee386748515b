"""What a dictionary is worth, measured on text it was not trained on, and written next to it.

Reconstruction is measured at the positions that count in training. The others (the first, special
tokens, the chat template's opening) keep their original activation when the model runs on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.common.files import write_atomically, write_json
from saepd.saes.activations import site_activations
from saepd.saes.corpus import Context, template_opening
from saepd.saes.load import explained_variance, sae_fingerprint, sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

DENSE_RATE = 0.1
AIM_PLAIN = 0.85
AIM_QUESTIONS = 0.80
AIM_RECOVERED = 0.95
AIM_L0 = 64
AIM_DEAD = 0.10

_CHUNK_ROWS = 4096
_MAX_TEXT_TOKENS = 512


def measure_sae(
    model: TransformerBridge,
    sae: SAE[Any],
    held_out: Sequence[Context],
    extra: Mapping[str, Sequence[str]],
    *,
    rows: Float[np.ndarray, "n d_in"] | None = None,
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
        raise InputError("there is no held-out text to measure the SAE on")
    site = sae_hook_name(sae)
    by_name: dict[str, list[Context]] = {}
    for context in held_out:
        by_name.setdefault(context.kind, []).append(context)
    for name, texts in extra.items():
        if name in by_name:
            raise InputError(f"the held-out text has a kind {name!r}: name your texts otherwise")
        by_name[name] = [_text_context(model.tokenizer, text, name) for text in texts]
    activations = {name: _activations(model, site, group) for name, group in by_name.items()}
    sets = {name: _reconstruction(sae, x) for name, x in activations.items()}
    held_x = torch.cat([activations[kind] for kind in by_name if kind not in extra])
    counted = held_x.numpy() if rows is None else rows
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
        "cross_entropy": _cross_entropy(model, sae, site, held_out, held_x.mean(0)),
        "latents": {
            "rows": len(counted),
            "dead_share": float((rates == 0).float().mean()),
            "dense_share": float((rates > DENSE_RATE).float().mean()),
        },
    }


def firing_rates(sae: SAE[Any], rows: Float[np.ndarray, "n d_in"]) -> Float[torch.Tensor, " d_sae"]:
    """Share of the rows at which each latent is active."""
    fired = torch.zeros(sae.cfg.d_sae)
    for start in range(0, len(rows), _CHUNK_ROWS):
        x = torch.from_numpy(np.asarray(rows[start : start + _CHUNK_ROWS], dtype=np.float32))
        fired += (sae.encode(x.to(sae.device)) != 0).sum(0).cpu()
    return fired / len(rows)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a measured card as ``card.json`` and, for people, as ``README.md``."""
    card = {**card, "aims": _aims(card)}
    write_json(folder / "card.json", card)
    write_atomically(folder / "README.md", _markdown(card).encode())


def _activations(model: TransformerBridge, site: str, group: list[Context]) -> torch.Tensor:
    # One context at a time: padding would cost more than batching gains on a CPU.
    found = [site_activations(model, [c], [site])[site] for c in group if any(c.keep)]
    if not found:
        raise InputError(f"no position counts in {group[0].kind if group else 'an empty set'!r}")
    return torch.cat(found)


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


def _reconstruction(sae: SAE[Any], x: torch.Tensor) -> dict[str, float]:
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
    mean: torch.Tensor,
) -> dict[str, float]:
    """Next-token loss after counted positions, with those positions replaced in four ways."""
    edits: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
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
    edit: Callable[[torch.Tensor], torch.Tensor],
) -> float:
    """Summed nats at the tokens after counted positions, the edit applied at those positions."""
    device = next(model.original_model.parameters()).device
    tokens = torch.tensor([context.tokens], device=device)
    keep = torch.tensor(context.keep)

    def replace(value: torch.Tensor, hook: object) -> torch.Tensor:
        edited = value.clone()
        edited[0, keep] = edit(value[0, keep])
        return edited

    with torch.inference_mode():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(site, replace)])
    losses = torch.nn.functional.cross_entropy(
        logits[0, :-1].float(), tokens[0, 1:].to(logits.device), reduction="none"
    )
    return float(losses.cpu()[keep[:-1]].sum())


def _aims(card: dict[str, Any]) -> list[dict[str, Any]]:
    sets = card["sets"]
    rows: list[tuple[str, str, float, bool]] = []
    for name, measured in sets.items():
        if name == "chat":
            continue
        aim = AIM_PLAIN if name == "plain" else AIM_QUESTIONS
        share = measured["explained_variance"]
        rows.append((f"explained variance, {name}", f">= {aim}", share, share >= aim))
    recovered = card["cross_entropy"]["recovered_from_zero"]
    l0 = max(measured["l0"] for measured in sets.values())
    dead = card["latents"]["dead_share"]
    rows += [
        ("cross-entropy recovered", f">= {AIM_RECOVERED}", recovered, recovered >= AIM_RECOVERED),
        ("active latents a position", f"<= {AIM_L0}", l0, l0 <= AIM_L0),
        ("dead latents", f"< {AIM_DEAD}", dead, dead < AIM_DEAD),
    ]
    return [
        {"what": what, "aim": aim, "measured": measured, "reached": reached}
        for what, aim, measured, reached in rows
    ]


def _markdown(card: dict[str, Any]) -> str:
    aims = "\n".join(
        f"| {a['what']} | {a['aim']} | {a['measured']:.3f} | {'yes' if a['reached'] else 'no'} |"
        for a in card["aims"]
    )
    sets = "\n".join(
        f"| {name}{' (extra)' if name in card['extra_sets'] else ''} | {m['positions']} "
        f"| {m['explained_variance']:.3f} | {m['l0']:.1f} |"
        for name, m in card["sets"].items()
    )
    loss, latents = card["cross_entropy"], card["latents"]
    recipe = ""
    if "training" in card:
        recipe = f"\n## Training\n\n```json\n{json.dumps(card['training'], indent=1)}\n```\n"
    return f"""---
library_name: saelens
tags: [sparse-autoencoder, interpretability]
---

# Sparse autoencoder: {card["model_name"]}, {card["hook_name"]}

{card["d_sae"]} latents ({card["architecture"]}) over the {card["d_in"]} dimensions of the residual
stream at `{card["hook_name"]}` of {card["model_name"]}. An ordinary SAELens folder, stored in
float16; fingerprint `{card["fingerprint"]}`.

```python
from saepd.models.load import load_model
from saepd.saes.load import load_sae

model = load_model()  # or the model named above, however you load it
sae = load_sae("path/to/this/folder", model=model)
```

## Aims and what was reached

| measure | aim | measured | reached |
| --- | --- | --- | --- |
{aims}

## Reconstruction on text not trained on

| text | positions | explained variance | active latents a position |
| --- | --- | --- | --- |
{sets}

Explained variance is pooled over positions: squared error over squared distance from the mean.
The first position, special tokens and the chat template's opening are not counted.

Cross-entropy in nats a token, over {loss["positions"]} held-out positions: {loss["base"]:.3f} for
the model as it is, {loss["sae"]:.3f} with the site replaced by the reconstruction,
{loss["zero"]:.3f} with zeros, {loss["mean"]:.3f} with the mean. That recovers
{loss["recovered_from_zero"]:.3f} of what zeros lose and {loss["recovered_from_mean"]:.3f} of what
the mean loses.

Over {latents["rows"]} activations, {latents["dead_share"]:.1%} of the latents never fire and
{latents["dense_share"]:.1%} fire at more than {DENSE_RATE:.0%} of the positions.

## Limits

The numbers hold for text like the one they were measured on. Positions that were left out of
training, the first above all, are reconstructed badly: do not steer there.
{recipe}"""
