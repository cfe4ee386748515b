"""Latents of directions on the live page: which speak for a token, and what is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.features.index.reading import own_index
from saepd.features.lens import direct_effects, writes_residual
from saepd.features.words import latent_words

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

N_LATENTS = 8


def latents_that_speak(
    model: TransformerBridge, direction: Direction, token: int, other: int
) -> list[dict[str, Any]]:
    """The latents of a direction that speak most for one token rather than another.

    Args:
        model: The language model.
        direction: A direction of one site; one that adds no latents has none that speak.
        token: Id of the token that they speak for.
        other: Id of the token in whose place it came.
    """
    edit = direction.edit
    if not isinstance(edit, EditLatents) or edit.values is None or edit.mode != "add":
        return []
    if not writes_residual(edit.sae):
        return []
    effects = direct_effects(model, edit.sae, edit.latents, token, other)
    effects = effects * edit.values.cpu() * direction.coefficient
    best = effects.argsort(descending=True)[:N_LATENTS].tolist()
    latents = [int(edit.latents[i]) for i in best]
    return [
        {
            "site": direction.hook_name,
            "latent": latent,
            "value": float(edit.values[i]),
            "effect": float(effects[i]),
            "about": about,
        }
        for i, latent, about in zip(
            best, latents, latent_words(model, edit.sae, latents), strict=True
        )
    ]


def known_latent(model: TransformerBridge, sae: SAE[Any], latent: int) -> dict[str, Any]:
    """What is known of one latent: its page in the SAE's own index, if there is one."""
    [about] = latent_words(model, sae, [latent])
    index = own_index(sae)
    if index is None:
        return {"latent": latent, "about": about, "density": None, "contexts": [], "given": []}
    page = index.page(latent)
    return {
        "latent": latent,
        "about": about,
        "density": page.density,
        "raises": page.raises,
        "lowers": page.lowers,
        "given": [label._asdict() for label in page.given],
        "contexts": [
            {"kind": c.kind, "tokens": c.tokens, "activations": c.activations}
            for c in page.contexts
        ],
    }
