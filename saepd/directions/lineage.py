"""The story of a steering folder: what its directions are, and what they were made with.

Reading it needs neither the model nor the SAE, and no torch: so a command can load both as the
folder says before it reads the directions themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE
from saepd.common.messages import shortened
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.hub_folder import local_folder
from saepd.directions.modes import EDIT_MODES
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

STORY_FORMAT = 2
# Directions of this format have neither a readout nor a verdict.
_OLDER_FORMAT = 1
RECONSTRUCT = "reconstruct"

_SHA256 = re.compile("[0-9a-f]{64}")
_MODES = (*EDIT_MODES, RECONSTRUCT)
_ENTRY = {
    "perspective": str,
    "hook_name": str,
    "mode": str,
    "positions": str,
    "coefficient": (int, float),
    "lineage": dict,
}
# What a gate reads at its site.
READS = ("residual", "latents")
_GATE = {
    "hook_name": (str,),
    "reads": (str,),
    "rule": (str,),
    "bias": (int, float),
    "threshold": (int, float),
    "cosine": (bool,),
    "limits": (list, type(None)),
}
_NAMES = ("model", "model_fingerprint", "sae", "sae_fingerprint")
# Whether code that comes with a model may run is for each run to say, not for a folder.
_LOADING = {
    "model": str,
    "revision": str,
    "dtype": str,
    "quantize": str,
    "sae": str,
    "sae_id": str,
    "block": int,
    "any_model": bool,
}


@dataclass(frozen=True)
class Lineage:
    """What the directions of a folder were made with.

    Attributes:
        perspectives: Names of the directions, in order.
        model: Name of the language model; None where it was not recorded.
        model_fingerprint: Hash of its weights; None where it was not recorded.
        sae: Model and site of the SAE, the first of several; None where no direction is made of
            latents.
        sae_fingerprint: Hash of its weights; None where no direction is made of latents.
        where: How the model and the first SAE were loaded, so that they can be loaded again; None
            where one of them was not loaded by `saepd.load_model` or `saepd.load_sae`.
        readout: How options were read when the readout of the directions was fitted; None where
            they have none.
        verdict: What fitting says of how much the directions are worth; None where nothing is said.
    """

    perspectives: tuple[str, ...]
    model: str | None
    model_fingerprint: str | None
    sae: str | None
    sae_fingerprint: str | None
    where: ModelConfig | None
    readout: ReadoutConfig | None = None
    verdict: dict[str, Any] | None = None


def read_lineage(folder: str | Path) -> Lineage:
    """What the directions in a folder were made with, without loading them.

    Args:
        folder: What `saepd.save_to_disk` wrote, here or on the hub, as for `saepd.load_from_disk`.

    Raises:
        InputError: missing, damaged or foreign files.
    """
    story = read_story(folder)
    entries = story["directions"]
    readouts = [readout for entry in entries if (readout := fitted_readout(entry)) is not None]
    stories = [entry["lineage"] for entry in entries]

    def first(name: str) -> Any:
        return next((story[name] for story in stories if story.get(name)), None)

    return Lineage(
        tuple(entry["perspective"] for entry in entries),
        *(first(name) for name in _NAMES),
        where=loaded_as(folder, first("loading") or {}, of_latents=bool(first("sae_fingerprint"))),
        readout=readouts[0].config if readouts else None,
        verdict=story.get("verdict"),
    )


def fitted_readout(entry: dict[str, Any]) -> FittedReadout | None:
    """The readout of a direction's entry, or None where it has none.

    Raises:
        InputError: what the entry has is no readout.
    """
    value = entry.get("readout")
    return None if value is None else FittedReadout.from_json(value)


def what_is_lacking(story: dict[str, Any]) -> str | None:
    """What directions that an earlier version saved lack; None where it was this version."""
    if story["format"] == STORY_FORMAT:
        return None
    learned = any("learned" in entry["lineage"] for entry in story["directions"])
    said = "an earlier version saved these directions, without a readout, a gate or a verdict"
    if learned:
        said += (
            ": the readout in their lineage held to first order only, and is not used; fit them "
            "again"
        )
    return said


def no_directions(folder: str | Path, error: OSError) -> str:
    """What is said of a folder one of whose files cannot be read."""
    name = Path(str(error.filename)).name
    return (
        f"{folder} holds no directions: cannot read {name} ({error.strerror}): name a folder that "
        "saepd fit wrote"
    )


def read_story(folder: str | Path) -> dict[str, Any]:
    """What ``steering.json`` says: ``sha256`` of the numbers, and an entry for each direction.

    Raises:
        InputError: a missing file, or one that is not what `saepd.save_to_disk` writes.
    """
    path = local_folder(folder) / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8")
        story = json.loads(text, parse_constant=_refuse_constant)
        # Half a surrogate pair, which could never be printed, is a ValueError here.
        json.dumps(story, ensure_ascii=False).encode()
    except OSError as error:
        raise InputError(no_directions(folder, error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the directions in {folder} are damaged: {error}") from error
    if wrong := _fault(story):
        raise InputError(f"the directions in {folder} are damaged: {CONFIG_FILE} {wrong}")
    return story


def site_entries(story: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the names of a site's tensors begin with -> what a story says of it.

    There is one entry for each site of each direction, in order; of a direction's further sites,
    each has the entry that is in ``also`` of the whole one's.

    Args:
        story: From `read_story`.
    """
    return {
        site_key(i, site): entry
        for i, whole in enumerate(story["directions"])
        for site, entry in enumerate((whole, *whole.get("also", [])))
    }


def site_key(direction: int, site: int) -> str:
    """What the names of the tensors of a direction's site begin with."""
    return f"{direction}" if site == 0 else f"{direction}.also{site}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _fault(story: Any) -> str | None:
    """What is wrong with a story, or None."""
    if not isinstance(story, dict) or not isinstance(story.get("sha256"), str):
        return "is no story of directions"
    if not _SHA256.fullmatch(story["sha256"]):
        return f"names numbers by {shortened(story['sha256'])}, which is no SHA-256"
    known = (_OLDER_FORMAT, STORY_FORMAT)
    if story.get("format") not in known or isinstance(story["format"], bool):
        return (
            f"is of format {shortened(story.get('format'))}, and this version reads "
            f"{_OLDER_FORMAT} and {STORY_FORMAT}"
        )
    if story["format"] == STORY_FORMAT and not isinstance(story.get("verdict"), dict | None):
        return f"has the verdict {shortened(story['verdict'])}, which is no JSON object"
    entries = story.get("directions")
    if not isinstance(entries, list) or not entries:
        return "needs a list of directions"
    faults = (_entry_fault(entry) for entry in entries)
    return next((f"has an entry that {fault}" for fault in faults if fault), None)


def _entry_fault(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(name), kind) and not isinstance(entry[name], bool)
        for name, kind in _ENTRY.items()
    ):
        return f"needs {', '.join(_ENTRY)}"
    if entry["mode"] not in _MODES:
        return f"has mode {entry['mode']!r}: it must be one of {', '.join(_MODES)}"
    try:
        fitted_readout(entry)
    except InputError as error:
        return f"has no readout that can be read: {error}"
    if (wrong := _gate_fault(entry.get("gate"))) is not None:
        return wrong
    if (wrong := _further_fault(entry)) is not None:
        return wrong
    story = entry["lineage"]
    for name in _NAMES:
        if not isinstance(story.get(name), str | None):
            return f"has a lineage whose {name} is no text"
    loading = story.get("loading", {})
    if not isinstance(loading, dict) or not all(
        isinstance(loading.get(name), kind | None) for name, kind in _LOADING.items()
    ):
        return "has a lineage whose loading is not how a model and an SAE are loaded"
    return None


def _further_fault(entry: dict[str, Any]) -> str | None:
    """What is wrong with what a direction does at further sites, or None."""
    further = entry.get("also", [])
    if not isinstance(further, list):
        return f"also does {shortened(further)}, which is no list of directions"
    for part in further:
        if isinstance(part, dict) and part.get("also"):
            return "does something at a further site, which has further sites of its own"
        if (wrong := _entry_fault(part)) is not None:
            return f"does something at a further site that {wrong}"
    return None


def _gate_fault(gate: Any) -> str | None:
    if gate is None:
        return None
    if not isinstance(gate, dict) or any(
        type(gate.get(name)) not in kinds for name, kinds in _GATE.items()
    ):
        return f"has a gate that needs {', '.join(_GATE)}"
    if gate["reads"] not in READS:
        return f"has a gate that reads {shortened(gate['reads'])}: use one of {', '.join(READS)}"
    return None


def loaded_as(
    folder: str | Path, loading: dict[str, Any], *, of_latents: bool
) -> ModelConfig | None:
    """The configuration that loads model and SAE again, where both say how they were loaded.

    Args:
        folder: Where directions are.
        loading: What a lineage in it says of loading.
        of_latents: Whether an SAE is needed.

    Raises:
        InputError: what is said is no configuration.
    """
    if "dtype" not in loading or (of_latents and not loading.keys() & {"sae", "block"}):
        return None
    known = {name: loading[name] for name in _LOADING if loading.get(name) is not None}
    if "block" in known and "model" in known:
        # A configuration takes the shipped SAEs for the packaged model's only.
        known["sae"] = str(known.pop("block"))
    try:
        return ModelConfig(**known)
    except InputError as error:
        raise InputError(
            f"the directions in {folder} are damaged: {CONFIG_FILE} says that model and SAE were "
            f"loaded as {known}: {error}"
        ) from error
