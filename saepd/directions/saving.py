"""Save and load directions: one safetensors file for the numbers, one JSON file for the story."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE, write_atomically
from saepd.directions.direction import Direction, check_fits
from saepd.directions.edits import AddVector, Edit, EditLatents, Reconstruct
from saepd.directions.modes import EDIT_MODES, EditMode
from saepd.models.identity import weights_fingerprint
from saepd.saes.load import sae_fingerprint

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_FORMAT = 1
_ENTRY = {
    "perspective": str,
    "hook_name": str,
    "mode": str,
    "positions": str,
    "coefficient": (int, float),
    "lineage": dict,
}


def save_to_disk(directions: Sequence[Direction], folder: str | Path) -> None:
    """Write directions as ``steering.safetensors`` and ``steering.json``.

    Latents, values and dense vectors are tensors; everything else, lineage and units included, is
    JSON. The JSON carries a hash of the tensors.
    """
    if not directions:
        raise InputError("there are no directions to save")
    tensors: dict[str, torch.Tensor] = {}
    entries: list[dict[str, Any]] = []
    for i, direction in enumerate(directions):
        for name, value in _numbers(direction.edit).items():
            # Copied, since scaled directions share their tensors and safetensors refuses that.
            tensors[f"{i}.{name}"] = value.cpu().clone().contiguous()
        entries.append(
            {
                "perspective": direction.perspective,
                "hook_name": direction.hook_name,
                "mode": _mode(direction.edit),
                "positions": direction.positions,
                "coefficient": direction.coefficient,
                "units": _units(direction.edit),
                "lineage": direction.lineage,
            }
        )
    payload = save(tensors)
    story = {"format": _FORMAT, "sha256": _sha256(payload), "directions": entries}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS_FILE, payload)
    write_atomically(folder / CONFIG_FILE, json.dumps(story, indent=1).encode())


def load_from_disk(
    folder: str | Path, model: TransformerBridge, sae: SAE[Any] | None = None
) -> list[Direction]:
    """Read directions and check that they belong to this model and this SAE.

    Args:
        folder: What `save_to_disk` wrote.
        model: The model they are for.
        sae: The dictionary of their latents; not needed for dense directions.

    Raises:
        InputError: missing, damaged or foreign files, another model, weights or SAE than
            the directions were made with, or latents without an SAE.
    """

    folder = Path(folder)
    try:
        payload = (folder / WEIGHTS_FILE).read_bytes()
        story = json.loads((folder / CONFIG_FILE).read_text())
        tensors = load(payload)
        entries = story["directions"]
        matches = story["format"] == _FORMAT and story["sha256"] == _sha256(payload)
    except OSError as error:
        raise InputError(f"{folder} holds no directions: {error}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"the directions in {folder} are damaged: {error}") from error
    if not matches:
        raise InputError(f"the directions in {folder} are damaged: hash or format do not match")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise InputError(
            f"the directions in {folder} are damaged: an entry of {CONFIG_FILE} needs "
            f"{', '.join(_ENTRY)}"
        )
    fingerprint = sae_fingerprint(sae) if sae is not None else None
    directions = []
    for i, entry in enumerate(entries):
        lineage = entry["lineage"]
        where = f"direction {entry['perspective']!r} in {folder}"
        numbers = {n: tensors.get(f"{i}.{n}") for n in ("latents", "values", "vector")}
        edit = _edit(where, entry["mode"], numbers, sae, lineage)
        if not isinstance(edit, AddVector) and lineage.get("sae_fingerprint") not in (
            None,
            fingerprint,
        ):
            raise InputError(f"{where} was made with another SAE: {lineage.get('sae')}")
        directions.append(
            Direction(
                perspective=entry["perspective"],
                hook_name=entry["hook_name"],
                edit=edit,
                positions=entry["positions"],
                coefficient=entry["coefficient"],
                lineage=lineage,
            )
        )
    check_fits(model, directions)
    made_with = {d.lineage.get("model_fingerprint") for d in directions} - {None}
    if made_with - {weights_fingerprint(model)}:
        raise InputError(f"the directions in {folder} were made with other weights of this model")
    return directions


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(name), kind) for name, kind in _ENTRY.items()
    )


def _edit(
    where: str,
    mode: str,
    numbers: dict[str, torch.Tensor | None],
    sae: SAE[Any] | None,
    lineage: dict[str, Any],
) -> Edit:
    """The edit of an entry, from its numbers and the SAE that they are of."""
    if numbers["vector"] is not None and mode == "add":
        return AddVector(numbers["vector"])
    if sae is None:
        raise InputError(f"{where} is made of SAE latents: load its SAE, {lineage.get('sae')}")
    if mode == "reconstruct":
        return Reconstruct(sae)
    if numbers["latents"] is None or mode not in EDIT_MODES:
        raise InputError(f"{where} is damaged: it has neither a vector nor latents to {mode}")
    values = None if mode == "ablate" else numbers["values"]
    return EditLatents(sae, numbers["latents"], values, cast("EditMode", mode))


def _numbers(edit: Edit) -> dict[str, torch.Tensor]:
    if isinstance(edit, AddVector):
        return {"vector": edit.vector}
    if isinstance(edit, EditLatents):
        found = {"latents": edit.latents, "values": edit.values}
        return {name: value for name, value in found.items() if value is not None}
    return {}


def _mode(edit: Edit) -> str:
    if isinstance(edit, EditLatents):
        return edit.mode
    return "add" if isinstance(edit, AddVector) else "reconstruct"


def _units(edit: Edit) -> str:
    """What the numbers of an edit are numbers of."""
    if isinstance(edit, AddVector):
        return "residual units"
    own = {"add": "SAE activation units", "clamp": "SAE activation units", "scale": "factor"}
    return own.get(_mode(edit), "none")


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
