"""What was measured about a dictionary, written next to it for machines and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saepd.common.files import write_atomically, write_json
from saepd.saes.measure import DENSE_RATE

AIM_PLAIN = 0.85
AIM_QUESTIONS = 0.80
AIM_RECOVERED = 0.95
AIM_L0 = 64
AIM_DEAD = 0.10


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a measured card as ``card.json`` and, for people, as ``README.md``."""
    card = {**card, "aims": _aims(card)}
    write_json(folder / "card.json", card)
    write_atomically(folder / "README.md", _markdown(card).encode())


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
import saepd

model = saepd.load_model()  # or the model named above, however you load it
sae = saepd.load_sae("path/to/this/folder", model=model)
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
The first position, special tokens, the chat template's opening and attention sinks are not counted.

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
