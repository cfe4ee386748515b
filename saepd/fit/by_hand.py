"""Directions without feedback: latents that somebody chose, and how much of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from saepd.branches.dose import scale_to_dose
from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.applying import check_fits
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.saving import made_with
from saepd.fit.budget import scale_to_kl
from saepd.fit.config import HandConfig
from saepd.saes.fits import check_sae
from saepd.saes.load import written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

NAME = "by hand"


def steer(
    model: TransformerBridge,
    sae: SAE[Any],
    latents: Mapping[int, float] | Iterable[int],
    config: HandConfig | None = None,
    *,
    name: str = NAME,
) -> Direction:
    """A direction of latents that were chosen by hand.

    ``steer(model, sae, {1203: 4.0, 88: -2.0})`` adds 4 to latent 1203 and takes 2 off latent 88.
    What comes back steers as any other direction does: ``compare``, ``branch``, ``generate``,
    ``with direction.apply(model):``, ``save_to_disk``. The sum of several, of SAEs of several
    sites, acts at all of them.

    Args:
        model: The language model.
        sae: The dictionary of the latents.
        latents: Latent id -> what is added to its activation (mode ``add``), what it is held at
            (``clamp``) or what it is multiplied by (``scale``); for ``ablate`` the ids alone.
        config: What is done to the latents, where, and how strongly.
        name: What the direction is called.

    Raises:
        InputError: whatever `EditLatents` refuses, an SAE of another width or of a site that the
            model does not have, or a strength that cannot be found.
    """
    config = config or HandConfig()
    check_part("config", config, HandConfig)
    check_sae(sae, model)
    if not isinstance(latents, Iterable):
        raise InputError(f"latents are {shortened(latents)}: give {{latent: value}}, or their ids")
    values = list(latents.values()) if isinstance(latents, Mapping) else None
    direction = Direction(
        name,
        written_site(sae),
        EditLatents(sae, list(latents), values, config.mode),
        positions=config.positions,
        lineage={**made_with(model, sae), "by_hand": asdict(config)},
    )
    return strengthened(model, direction, config)[0]


def strengthened(
    model: TransformerBridge, together: Directions, config: HandConfig
) -> list[Direction]:
    """Directions of one branch, with the strength that a configuration asks for.

    Raises:
        InputError: a direction that does not fit the model, or a strength that cannot be found.
    """
    together = as_directions(together)
    check_fits(model, together)
    if config.relative_dose:
        return scale_to_dose(model, together, config.relative_dose)
    if config.kl_budget:
        return scale_to_kl(model, together, config.kl_budget)
    return [config.strength * direction for direction in together]
