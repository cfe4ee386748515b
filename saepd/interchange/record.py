"""What is exchanged: vectors in residual units at their sites, with who made them of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.models.position_specs import parse_positions

Lost = Literal["positions", "mode", "site", "block 0", "readout", "gate"]
Vector = Float[np.ndarray, " d_model"]


@dataclass(frozen=True)
class LatentSource:
    """The latents that a vector is made of.

    Attributes:
        latents: Their ids.
        values: What is added to each, in SAE activation units; None where nothing is added.
        mode: What happens to them: ``add``, ``scale``, ``clamp`` or ``ablate``.
        neuronpedia_id: Page of the SAE, such as ``gemma-2-2b/12-gemmascope-res-16k``; None where
            it has none.
    """

    latents: tuple[int, ...]
    values: tuple[float, ...] | None
    mode: str
    neuronpedia_id: str | None


@dataclass(frozen=True, eq=False)
class SiteVector:
    """What one direction writes at one site.

    Attributes:
        hook_name: The site, such as ``blocks.15.hook_resid_post``.
        block: Block whose output it is added to, from 0; None where the site is no such output,
            and -1 where it is the first block's input.
        vector: What is added, coefficient included, in residual units; None where that depends on
            the text.
        positions: Where it is added; see `saepd.models.positions`.
        source: The latents it is made of; None of a plain vector.
    """

    hook_name: str
    block: int | None
    vector: Vector | None
    positions: str
    source: LatentSource | None = None

    def __post_init__(self) -> None:
        parse_positions(self.positions)
        if self.vector is not None:
            object.__setattr__(self, "vector", _checked(self.vector))


@dataclass(frozen=True)
class ModelFacts:
    """What formats say of the language model.

    Attributes:
        name: Its hub id or folder's name.
        kind: Its architecture in transformers, such as ``llama``.
        n_blocks: How many blocks it has.
        d_model: Width of its residual stream.
        blocks_at: Module of its blocks within ``model.base_model``, such as ``layers``.
        special_ids: Ids of its tokenizer's special tokens.
    """

    name: str
    kind: str
    n_blocks: int
    d_model: int
    blocks_at: str
    special_ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class SteeringRecord:
    """All that one perspective writes, whatever it was made of.

    Attributes:
        perspective: Name of the perspective that writes it.
        sites: What is written where, at least once.
        model: The model it is for.
        unsaid: What is part of the direction and of no vector, its readout or its gate, with a
            sentence on each.
        lineage: How it came about; JSON values.
    """

    perspective: str
    sites: tuple[SiteVector, ...]
    model: ModelFacts
    unsaid: tuple[tuple[Lost, str], ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def by_block(self) -> dict[int, Vector]:
        """The sum of what is added to each block's output, lowest block first.

        Sites that are no block's output, and edits that depend on the text, are not among them.
        """
        total: dict[int, Vector] = {}
        for site in self.sites:
            if site.vector is not None and site.block is not None and site.block >= 0:
                before = total.get(site.block)
                total[site.block] = site.vector if before is None else before + site.vector
        return dict(sorted(total.items()))

    @property
    def norm(self) -> float:
        """Euclidean norm of all that is added at whatever site, in residual units."""
        total: dict[int | str, Vector] = {}
        for site in self.sites:
            if site.vector is not None:
                place = site.hook_name if site.block is None else site.block
                total[place] = total.get(place, np.zeros_like(site.vector)) + site.vector
        return float(np.sqrt(sum(float(v @ v) for v in total.values())))


def file_stems(perspectives: Sequence[str]) -> list[str]:
    """Names of files for perspectives: letters, digits and dashes, each once."""
    stems: list[str] = []
    for name in perspectives:
        plain = "".join(c if c.isalnum() and c.isascii() else "-" for c in name).strip("-")[:60]
        stem = base = plain or "perspective"
        number = 2
        while stem.lower() in {s.lower() for s in stems}:
            stem, number = f"{base}-{number}", number + 1
        stems.append(stem)
    return stems


def _checked(vector: Any) -> Vector:
    numbers = np.array(vector, dtype=np.float32)
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(f"a vector must be a list of numbers, not of shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise InputError("a vector must be finite: NaN or infinity is among its numbers")
    return numbers
