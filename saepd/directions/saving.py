"""Save and load directions: one safetensors file for the numbers, one JSON file for the story."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE, write_atomically
from saepd.common.messages import shortened
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.applying import check_fits
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.entries import NUMBERS, direction_of, entry_of, numbers_of
from saepd.directions.hub_folder import local_folder
from saepd.directions.lineage import (
    STORY_FORMAT,
    loaded_as,
    no_directions,
    read_story,
    site_key,
    what_is_lacking,
)
from saepd.models.identity import check_model, weights_fingerprint
from saepd.saes.abilities import check_is_sae
from saepd.saes.load import load_sae, sae_fingerprint, sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_log = logging.getLogger(__name__)

# What a lineage says of the model, and what its loading says of the SAE.
_MODEL = ("model", "model_fingerprint", "weight_processing")
_SAE = ("sae", "sae_id", "block", "any_model")


def made_with(model: TransformerBridge | None, sae: SAE[Any] | None) -> dict[str, Any]:
    """What a lineage says of a model and an SAE, as JSON values: names, fingerprints, sources."""
    if model is not None:
        check_model(model)
    story: dict[str, Any] = {}
    loading: dict[str, Any] = {}
    if model is not None:
        story |= {
            "model": str(model.cfg.model_name),
            "model_fingerprint": weights_fingerprint(model),
            "weight_processing": "none",
        }
        loading |= getattr(model.cfg, "loaded_from", {})
    if sae is not None:
        story |= {
            "sae": f"{sae.cfg.metadata.model_name}/{sae_hook_name(sae)}",
            "sae_fingerprint": sae_fingerprint(sae),
        }
        loading |= getattr(sae.cfg.metadata, "loaded_from", None) or {}
    return story | {"loading": loading}


def save_to_disk(
    directions: Directions,
    folder: str | Path,
    model: TransformerBridge | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> None:
    """Write directions as ``steering.safetensors`` and ``steering.json``.

    Latents, values, vectors and what gates weigh are tensors; everything else, lineage, readouts
    and units included, is JSON. The JSON carries a hash of the tensors. Of directions that were
    made by hand, it records the SAE, and the model if it is given. Whenever saving ends before its
    time, what the folder held before can be loaded, or all of the new directions.

    Args:
        directions: One direction or several, or what `saepd.fit_directions` returns.
        folder: Where the two files go; those of an earlier call are replaced.
        model: The model they are for, where their lineage does not say.
        verdict: What is known of how much they are worth, as JSON values; `read_lineage` tells it.

    Raises:
        InputError: no directions, those of several models, a folder that is a file, a gate that
            reads with another SAE than its direction's, or a lineage or verdict that JSON cannot
            hold.
    """
    directions, folder = as_directions(directions), Path(folder)
    if not directions:
        raise InputError("there are no directions to save: give at least one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the directions")
    if not isinstance(verdict, Mapping | None):
        raise InputError(
            f"the verdict is {shortened(verdict)}: give JSON values, as verdict.as_json() returns"
        )
    stories = _stories(directions, model)
    tensors: dict[str, torch.Tensor] = {}
    entries: list[dict[str, Any]] = []
    for i, direction in enumerate(directions):
        whole: list[dict[str, Any]] = []
        for j, part in enumerate((direction, *direction.also)):
            for name, value in numbers_of(part).items():
                # Copied, since scaled directions share their tensors and safetensors refuses that.
                tensors[f"{site_key(i, j)}.{name}"] = value.cpu().clone().contiguous()
            whole.append(entry_of(part) | {"lineage": stories[part]})
        entries.append(whole[0] | {"also": whole[1:]})
    payload = save(tensors)
    story = {
        "format": STORY_FORMAT,
        "sha256": _sha256(payload),
        "directions": entries,
        "verdict": None if verdict is None else _as_json(dict(verdict), "the verdict"),
    }
    text = json.dumps(story, indent=1, allow_nan=False)
    _finish_saving(folder)
    # The JSON says which numbers are its own. Until they have their place, they wait under a name
    # of their own, so that at any moment the old pair or the new one can be read.
    waiting = _waiting(folder, story["sha256"])
    write_atomically(waiting, payload)
    write_atomically(folder / CONFIG_FILE, text.encode())
    _finish_saving(folder)
    # Only there if another process has saved here meanwhile.
    waiting.unlink(missing_ok=True)


def load_from_disk(
    folder: str | Path,
    model: TransformerBridge,
    sae: SAE[Any] | Sequence[SAE[Any]] | None = None,
) -> list[Direction]:
    """Read directions and check that they belong to this model and to their SAEs.

    Args:
        folder: What `save_to_disk` wrote, here or on the hub: ``hf://user/name``, with
            ``@revision`` behind it for a branch, tag or commit.
        model: The model they are for.
        sae: The dictionary of their latents, or several; those that the folder names are loaded if
            None.

    Raises:
        InputError: missing, damaged or foreign files, what is no SAE, another model, weights or
            SAE than the directions were made with, or latents whose SAE is not given and cannot be
            loaded.
    """
    folder = local_folder(folder)
    story, tensors = read_story_and_tensors(folder)
    if lacking := what_is_lacking(story):
        _log.warning("%s: %s", folder, lacking)
    given: list[Any] = [] if sae is None else [sae]
    if isinstance(sae, Sequence) and not isinstance(sae, str):
        given = [*sae]
    for one in given:
        check_is_sae(one)
    known = {(sae_fingerprint(one), sae_hook_name(one)): one for one in given}
    directions = []
    for i, entry in enumerate(story["directions"]):
        where = f"direction {entry['perspective']!r} in {folder}"
        parts: list[Direction] = []
        # The first is the whole one, which holds the others.
        further = entry.get("also", [])
        for j, part in reversed([*enumerate((entry, *further))]):
            numbers = {name: tensors.get(f"{site_key(i, j)}.{name}") for name in NUMBERS}
            its_sae = None
            if numbers["vector"] is None or (part.get("gate") or {}).get("reads") == "latents":
                its_sae = _sae_of(where, folder, part["lineage"], known, model, load=sae is None)
            try:
                parts.append(
                    direction_of(part, numbers, its_sae, tuple(parts[::-1]) if not j else ())
                )
            except InputError as error:
                raise InputError(f"{where} is damaged: {error}") from error
        directions.append(parts[-1])
    check_fits(model, directions)
    weights = {d.lineage.get("model_fingerprint") for d in directions} - {None}
    if weights and weights != {weights_fingerprint(model)}:
        raise InputError(
            f"the directions in {folder} were made with other weights of this model: load those, "
            "or fit new directions"
        )
    return directions


def _stories(
    directions: Sequence[Direction], model: TransformerBridge | None
) -> dict[Direction, dict[str, Any]]:
    """Lineages with what the directions show of themselves: their SAE, and the model if given.

    Those of what directions do at further sites are among them.
    """
    every = [part for direction in directions for part in (direction, *direction.also)]
    by_sae = {id(sae): made_with(model, sae) for part in every for sae in _saes(part)}
    plain = made_with(model, None)
    stories = {}
    for whole, part in ((d, part) for d in directions for part in (d, *d.also)):
        of_part = [by_sae[id(sae)] for sae in _saes(part)]
        if len({one["sae_fingerprint"] for one in of_part}) > 1:
            raise InputError(
                f"direction {part.perspective!r} writes latents of {of_part[0]['sae']}, and "
                f"its gate reads those of {of_part[1]['sae']}: a folder holds one SAE for each "
                "site of a direction, the first site's being the gate's as well"
            )
        shown = of_part[0] if of_part else plain
        known = part.lineage if part is whole else {**_of_model(whole.lineage), **part.lineage}
        loading = {**known.get("loading", {}), **shown["loading"]}
        story = {**known, **shown, "loading": loading}
        stories[part] = _as_json(story, f"direction {part.perspective!r}: its lineage")
    if len({story.get("model_fingerprint") for story in stories.values()} - {None}) > 1:
        raise InputError(
            "directions of several models cannot share a folder: save those of each model in a "
            "folder of its own"
        )
    return stories


def _of_model(lineage: dict[str, Any]) -> dict[str, Any]:
    """What a lineage says of the model, which is that of a direction's further sites as well."""
    loading = lineage.get("loading", {})
    of_model = {name: lineage[name] for name in _MODEL if name in lineage}
    return {
        **of_model,
        "loading": {name: value for name, value in loading.items() if name not in _SAE},
    }


def _saes(direction: Direction) -> list[SAE[Any]]:
    """The dictionaries that a direction writes with, or that its gate reads with."""
    edit, gate = direction.edit, direction.gate
    saes = [None if isinstance(edit, AddVector) else edit.sae, gate.sae if gate else None]
    return [sae for sae in saes if sae is not None]


def _as_json(value: dict[str, Any], what: str) -> dict[str, Any]:
    """The same in JSON's own types."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} is no JSON: {error}") from error


def _plain(value: object) -> object:
    """A number of numpy's, which a setting may well be, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _waiting(folder: Path, sha256: str) -> Path:
    """Where numbers with this hash are until the story that names them is written."""
    return folder / f".{Path(WEIGHTS_FILE).stem}-{sha256[:16]}.safetensors"


def _finish_saving(folder: Path) -> None:
    """Give the numbers that the story names their place, if they wait for it."""
    with suppress(InputError, FileNotFoundError):
        _waiting(folder, read_story(folder)["sha256"]).replace(folder / WEIGHTS_FILE)


def read_story_and_tensors(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What both files of a folder say; those that belong together, while others save there.

    Raises:
        InputError: as `read_story` and `read_tensors`.
    """
    story = read_story(folder)
    while True:
        try:
            return story, read_tensors(folder, story["sha256"])
        except InputError:
            before, story = story, read_story(folder)
            # Unless somebody has saved between the two reads, the folder is damaged.
            if story["sha256"] == before["sha256"]:
                raise


def read_tensors(folder: Path, sha256: str) -> dict[str, torch.Tensor]:
    """The numbers of a folder's directions: ``latents``, ``values``, ``vector`` by entry.

    Args:
        folder: What `save_to_disk` wrote.
        sha256: Hash of the numbers, as `saepd.directions.lineage.read_story` tells it.

    Raises:
        InputError: the numbers are missing, or are not those that the story was written with.
    """
    try:
        try:
            payload = _waiting(folder, sha256).read_bytes()
        except FileNotFoundError:
            payload = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise InputError(no_directions(folder, error)) from error
    if _sha256(payload) != sha256:
        raise InputError(
            f"the directions in {folder} are damaged: {WEIGHTS_FILE} is not the file that "
            f"{CONFIG_FILE} was written with"
        )
    try:
        return load(payload)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"the directions in {folder} are damaged: {error}") from error


def _sae_of(
    where: str,
    folder: Path,
    lineage: dict[str, Any],
    known: dict[tuple[str, str], SAE[Any]],
    model: TransformerBridge,
    *,
    load: bool,
) -> SAE[Any]:
    """The SAE that a lineage names, among those that are known or else loaded as it says."""
    name, fingerprint = lineage.get("sae"), lineage.get("sae_fingerprint")
    if name is None or fingerprint is None:
        raise InputError(f"{where} does not say of which SAE its latents are: save it again")
    # Weights alone do not tell the dictionaries of two sites apart.
    key = (fingerprint, name.rpartition("/")[-1])
    if key not in known and not load:
        raise InputError(f"{where} was made with another SAE: {name}")
    if key not in known:
        config = loaded_as(folder, lineage.get("loading", {}), of_latents=True)
        if config is None:
            raise InputError(
                f"{where} is made of SAE latents, and does not say where from: load its SAE, {name}"
            )
        sae = load_sae(config.sae_source, config.sae_id, model=model, any_model=config.any_model)
        if (sae_fingerprint(sae), sae_hook_name(sae)) != key:
            raise InputError(
                f"{where} was made with another SAE than there is now where its own was: load its "
                f"SAE, {name}"
            )
        known[key] = sae
    return known[key]


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
