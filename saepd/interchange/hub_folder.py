"""A steering folder as others will find it on the Hugging Face hub: its two files, and a card.

Nothing is sent anywhere: the folder is for ``hf upload user/name FOLDER``, and whoever has its
address loads it with ``saepd.load_from_disk("hf://user/name", model)``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE, write_atomically, write_json
from saepd.directions.hub_folder import local_folder
from saepd.directions.lineage import (
    Lineage,
    no_directions,
    read_lineage,
    read_story,
    site_entries,
)

CARD_FILE = "README.md"
# How model and SAE were loaded, where that may be a path of one's own.
_PLACES = ("model", "sae")


def write_hub_folder(folder: str | Path, out: str | Path) -> list[str]:
    """Write the two files of a steering folder beside a card made from its verdict.

    Paths of this machine, by which model or SAE were loaded, are left out.

    Args:
        folder: What `saepd.save_to_disk` wrote.
        out: Folder that gets the files.

    Returns:
        What was left out, one sentence each.

    Raises:
        InputError: missing, damaged or foreign files, or the folder itself as the place to write.
    """
    folder, out = local_folder(folder), Path(out)
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} is the folder that is exported: name another")
    story = read_story(folder)
    try:
        payload = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise InputError(no_directions(folder, error)) from error
    if hashlib.sha256(payload).hexdigest() != story["sha256"]:
        raise InputError(f"the directions in {folder} are damaged: the two files are no pair")
    left_out = _leave_out_paths(story)
    write_atomically(out / WEIGHTS_FILE, payload)
    write_json(out / CONFIG_FILE, story)
    write_atomically(out / CARD_FILE, card(story, read_lineage(folder)).encode())
    return left_out


def card(story: Mapping[str, Any], lineage: Lineage) -> str:
    """The card of a steering folder, in Markdown."""
    names = ", ".join(_plain(name) for name in dict.fromkeys(lineage.perspectives))
    lines = ["---", "library_name: saepd", "tags: [steering, activation-steering, saepd]"]
    base = lineage.where.model if lineage.where is not None else None
    if base and not Path(base).is_absolute():
        lines.append(f"base_model: {json.dumps(base)}")
    lines += [
        "---",
        "",
        f"# Steering directions: {names}",
        "",
        "Each direction lets a language model answer as people of one perspective would. They were "
        f"made for {_plain(lineage.model or 'a model that was not recorded')}"
        + (f", from latents of the SAE {_plain(lineage.sae)}" if lineage.sae else "")
        + ". No weight of the model is changed.",
        "",
        "| perspective | site | edit | positions | coefficient | readout | gate |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in site_entries(story).values():
        cells = [_plain(entry[name]) for name in ("perspective", "hook_name", "mode", "positions")]
        has = ["fitted" if entry.get(name) else "none" for name in ("readout", "gate")]
        lines.append(f"| {' | '.join([*cells, format(entry['coefficient'], '.4g'), *has])} |")
    lines += ["", "## How good they are", ""]
    if lineage.verdict:
        measured = dict(lineage.verdict)
        if sentence := measured.pop("sentence", None):
            lines += [_plain(sentence), ""]
        lines += ["What fitting measured:", "", "| measure | value |", "| --- | --- |"]
        lines += [f"| {_plain(name)} | {_plain(value)} |" for name, value in _leaves(measured)]
    else:
        lines.append("Nobody has said: these directions come without a verdict.")
    lines += [
        "",
        "They repeat what a sample of people said, and that sample's gaps. An answer given under "
        "them is a guess about a group, and of no person in it.",
        "",
        "## Use",
        "",
        "```python",
        "import saepd",
        "",
        "model = saepd.load_model(MODEL)",
        'directions = saepd.load_from_disk("hf://USER/NAME", model)',
        "```",
        "",
    ]
    return "\n".join(lines)


def _leave_out_paths(story: dict[str, Any]) -> list[str]:
    left_out: dict[str, None] = {}
    for entry in site_entries(story).values():
        loading = entry["lineage"].get("loading", {})
        for name in _PLACES:
            place = loading.get(name)
            if isinstance(place, str) and Path(place).is_absolute():
                del loading[name]
                sentence = f"where the {name} is on this machine; who loads the folder names it"
                left_out[sentence] = None
    return list(left_out)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts of a JSON value, with the names that lead to them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}, {key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        for number, inner in enumerate(value, 1):
            yield from _leaves(inner, f"{name}, {number}")
    else:
        yield name, value


def _plain(value: Any) -> str:
    """A value as it may stand in a cell: no markup, no line break."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value)
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in text)
