"""One direction as an entry of a steering folder, and back: JSON values, and tensors by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, Edit, EditLatents, Reconstruct
from saepd.directions.gate import Gate
from saepd.directions.lineage import RECONSTRUCT, fitted_readout

if TYPE_CHECKING:
    from sae_lens import SAE

_GATE_NUMBERS = ("gate_weights", "gate_mean", "gate_scale")
NUMBERS = ("latents", "values", "vector", *_GATE_NUMBERS)


def entry_of(direction: Direction) -> dict[str, Any]:
    """What is said of a direction's first site, gate and readout beside their numbers, as JSON."""
    return {
        "perspective": direction.perspective,
        "hook_name": direction.hook_name,
        "mode": _mode(direction.edit),
        "positions": direction.positions,
        "coefficient": float(direction.coefficient),
        "units": _units(direction.edit),
        "readout": None if direction.readout is None else direction.readout.as_json(),
        "gate": _gate_story(direction.gate),
    }


def numbers_of(direction: Direction) -> dict[str, Tensor]:
    """The tensors of a direction's first site and of its gate, by the names in `NUMBERS`."""
    return _edit_numbers(direction.edit) | _gate_numbers(direction.gate)


def direction_of(
    entry: dict[str, Any],
    numbers: dict[str, Tensor | None],
    sae: SAE[Any] | None,
    also: tuple[Direction, ...] = (),
) -> Direction:
    """The direction of an entry that `saepd.directions.lineage.read_story` has checked.

    Args:
        entry: JSON values of the entry.
        numbers: Tensors that the entry has, by the names in `NUMBERS`.
        sae: The dictionary of its latents.
        also: What the direction does at further sites.

    Raises:
        InputError: numbers or settings that make no direction.
    """
    if numbers["vector"] is not None and numbers["latents"] is not None:
        raise InputError("it has both a vector and latents to write: save it again with one")
    return Direction(
        perspective=entry["perspective"],
        hook_name=entry["hook_name"],
        edit=_edit(entry["mode"], numbers, None if numbers["vector"] is not None else sae),
        positions=entry["positions"],
        coefficient=entry["coefficient"],
        lineage=entry["lineage"],
        readout=fitted_readout(entry),
        gate=_gate(entry.get("gate"), numbers, sae),
        also=also,
    )


def _gate(
    story: dict[str, Any] | None, numbers: dict[str, Tensor | None], sae: SAE[Any] | None
) -> Gate | None:
    """The gate of an entry, from its numbers and the SAE that it reads with."""
    if story is None:
        return None
    weights, mean, scale = (numbers[name] for name in _GATE_NUMBERS)
    if weights is None or mean is None or scale is None:
        raise InputError("its gate lacks weights, mean or scale")
    return Gate(
        story["hook_name"],
        weights,
        mean,
        scale,
        bias=story["bias"],
        sae=sae if story["reads"] == "latents" else None,
        rule=story["rule"],
        threshold=story["threshold"],
        cosine=story["cosine"],
        limits=story["limits"],
    )


def _gate_numbers(gate: Gate | None) -> dict[str, Tensor]:
    if gate is None:
        return {}
    assert gate.mean is not None and gate.scale is not None
    return dict(zip(_GATE_NUMBERS, (gate.weights, gate.mean, gate.scale), strict=True))


def _gate_story(gate: Gate | None) -> dict[str, Any] | None:
    """What is said of a gate beside its numbers; see `saepd.directions.lineage`."""
    if gate is None:
        return None
    return {
        "hook_name": gate.hook_name,
        "reads": "residual" if gate.sae is None else "latents",
        "rule": gate.rule,
        "bias": float(gate.bias),
        "threshold": float(gate.threshold),
        "cosine": gate.cosine,
        "limits": None if gate.limits is None else list(gate.limits),
    }


def _edit(mode: Any, numbers: dict[str, Tensor | None], sae: SAE[Any] | None) -> Edit:
    """The edit of an entry, from its numbers and the SAE that they are of."""
    if sae is None:
        if numbers["vector"] is None or mode != "add":
            raise InputError(f"a vector can only be added, and its mode is {mode}")
        return AddVector(numbers["vector"])
    if mode == RECONSTRUCT:
        return Reconstruct(sae)
    if numbers["latents"] is None:
        raise InputError(f"it has no latents to {mode}")
    return EditLatents(sae, numbers["latents"], numbers["values"], mode)


def _edit_numbers(edit: Edit) -> dict[str, Tensor]:
    if isinstance(edit, AddVector):
        return {"vector": edit.vector}
    if isinstance(edit, EditLatents):
        numbers = {"latents": edit.latents, "values": edit.values}
        return {name: value for name, value in numbers.items() if value is not None}
    return {}


def _mode(edit: Edit) -> str:
    if isinstance(edit, EditLatents):
        return edit.mode
    return "add" if isinstance(edit, AddVector) else RECONSTRUCT


def _units(edit: Edit) -> str:
    """What the numbers of an edit are numbers of."""
    if isinstance(edit, AddVector):
        return "residual units"
    units = {"add": "SAE activation units", "clamp": "SAE activation units", "scale": "factor"}
    return units.get(_mode(edit), "none")
