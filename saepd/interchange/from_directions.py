"""Records out of directions: what each perspective writes, wherever its directions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.sites import block_output
from saepd.interchange.record import LatentSource, Lost, ModelFacts, SiteVector, SteeringRecord

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def model_facts(model: TransformerBridge) -> ModelFacts:
    """What formats say of a model.

    Raises:
        InputError: its blocks are no list within its base model.
    """
    inner: Any = model.original_model
    first = model.blocks[0]
    names = [name for name, module in inner.base_model.named_modules() if module is first]
    if not names or not names[0].endswith(".0"):
        raise InputError(
            f"{model.cfg.model_name} keeps its blocks in no list, by which other tools could name "
            "them: use another architecture"
        )
    return ModelFacts(
        name=str(model.cfg.model_name),
        kind=str(inner.config.model_type),
        n_blocks=len(model.blocks),
        d_model=int(model.cfg.d_model),
        blocks_at=names[0].removesuffix(".0"),
        special_ids=tuple(getattr(model.tokenizer, "all_special_ids", ())),
    )


def by_perspective(directions: Sequence[Direction]) -> dict[str, list[Direction]]:
    """The directions of each perspective, which act together, in the order of their first."""
    groups: dict[str, list[Direction]] = {}
    for direction in directions:
        groups.setdefault(direction.perspective, []).append(direction)
    return groups


def as_record(directions: Sequence[Direction], model: ModelFacts) -> SteeringRecord:
    """What the directions of one perspective write, coefficients included."""
    sites = tuple(_site(part) for direction in directions for part in direction.parts)
    unsaid = dict.fromkeys(one for d in directions for one in _unsaid(d))
    return SteeringRecord(
        directions[0].perspective, sites, model, tuple(unsaid), directions[0].lineage
    )


def _site(direction: Direction) -> SiteVector:
    constant = direction.constant
    vector = None if constant is None else constant.detach().float().cpu().numpy()
    edit = direction.edit
    source = None
    if isinstance(edit, EditLatents):
        values = None
        if edit.mode == "add" and edit.values is not None:
            values = tuple((direction.coefficient * edit.values).tolist())
        page = getattr(edit.sae.cfg.metadata, "neuronpedia_id", None)
        source = LatentSource(tuple(edit.latents.tolist()), values, edit.mode, page)
    return SiteVector(
        direction.hook_name, block_output(direction.hook_name), vector, direction.positions, source
    )


def _unsaid(direction: Direction) -> list[tuple[Lost, str]]:
    """What belongs to a direction and is in no vector."""
    unsaid: list[tuple[Lost, str]] = []
    if direction.readout is not None:
        unsaid.append(("readout", "the fitted readout, which makes answers of scores, is left out"))
    if direction.gate is not None:
        unsaid.append(("gate", "the gate, which says how much an item gets, is left out"))
    return unsaid
