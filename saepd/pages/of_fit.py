"""The report of a steering folder: the verdict on it, its directions, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.html import Html, element, facts, joined, note, table
from saepd.directions.lineage import read_lineage, site_entries
from saepd.directions.saving import read_story_and_tensors
from saepd.pages.page import Section
from saepd.pages.svg import Measured, intervals_picture

# What saepd features --out writes, where it is put beside the directions.
FEATURES_FILE = "features.json"
_MOST_LATENTS = 15
_N_CONTEXTS = 3
_LONGEST_CONTEXT = 400


class _Entry(NamedTuple):
    """A direction at one of its sites, and its latents with their values, the largest first."""

    story: dict[str, Any]
    latents: list[tuple[int, float | None]]
    norm: float | None


def fit_sections(folder: Path) -> tuple[str, str, list[Section]]:
    """Title, finding and parts of a steering folder's report.

    Raises:
        InputError: the folder holds no directions, or its features are not what ``saepd features``
            writes.
    """
    entries = _entries(folder)
    lineage = read_lineage(folder)
    evidence = _evidence(folder)
    names = ", ".join(lineage.perspectives)
    sections = [Section("Directions", _directions(entries))]
    if lineage.verdict:
        sections.insert(0, Section("Verdict", _verdict(lineage.verdict)))
    made_of_latents = [entry for entry in entries if entry.latents]
    if len({entry.story["perspective"] for entry in made_of_latents}) > 1:
        sections.append(Section("Latents that perspectives share", _shared(made_of_latents)))
    if made_of_latents:
        sections.append(Section("Latents", _latents(made_of_latents, evidence)))
    sections.append(Section("Configuration and versions", _configuration(entries)))
    return f"Directions of {names}", _lead(lineage.verdict, entries), sections


def _entries(folder: Path) -> list[_Entry]:
    story, tensors = read_story_and_tensors(folder)
    entries = []
    for key, entry in site_entries(story).items():
        ids, values, vector = (tensors.get(f"{key}.{n}") for n in ("latents", "values", "vector"))
        latents: list[tuple[int, float | None]] = []
        norm = None if vector is None else float(vector.float().norm())
        if ids is not None and values is not None:
            order = values.abs().argsort(descending=True, stable=True)
            latents = [*zip(ids[order].tolist(), values[order].tolist(), strict=True)]
        elif ids is not None:
            latents = [(latent, None) for latent in ids.tolist()]
        entries.append(_Entry(entry, latents, norm))
    return entries


def _evidence(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What is known of each perspective's latents; empty where nobody asked."""
    path = folder / FEATURES_FILE
    if not path.is_file():
        return {}
    try:
        rows = json.loads(read_text(path))["features"]
        return {(row["perspective"], int(row["latent"])): row for row in rows}
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} is not what saepd features --out writes: write it again, or delete it"
        ) from error


def _verdict(verdict: dict[str, Any]) -> Html:
    """Gains of the directions and of what else could have been written, and all else that is said.

    A verdict may be any JSON object: what is not as learning writes it is told as it stands.
    """
    gains = {
        "the directions": (verdict.get("gain"), False),
        **{f"{n}'s own": (gain, False) for n, gain in _dict(verdict, "by_perspective").items()},
        **{name: (gain, True) for name, gain in _dict(verdict, "controls").items()},
    }
    rows = [
        Measured(name, gain["estimate"], gain["low"], gain["high"], plain=is_control)
        for name, (gain, is_control) in gains.items()
        if isinstance(gain, dict) and gain.keys() >= {"estimate", "low", "high"}
    ]
    costs = [{"perspective": n, **cost} for n, cost in _dict(verdict, "costs").items()]
    # The sentence stands on top of the page already.
    shown = ("gain", "by_perspective", "controls", "costs", "sentence")
    rest = {name: value for name, value in verdict.items() if name not in shown or not rows}
    parts: list[Html] = []
    if rows:
        parts += [
            intervals_picture(rows, "gain over the readout alone, nats an answer"),
            note("On questions not seen, with intervals; what else could be written is in blue."),
            table(["", "gain", "low", "high"], [list(row[:4]) for row in rows], digits=4),
        ]
    if rows and costs:
        parts += [element("h3", "Costs"), facts({"of each direction": costs})]
    return joined(*parts, facts(rest))


def _dict(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    value = verdict.get(name)
    return value if isinstance(value, dict) else {}


def _lead(verdict: dict[str, Any] | None, entries: list[_Entry]) -> str:
    """What the verdict says first, or that there is none."""
    if verdict is not None:
        values = [verdict.get("sentence"), *verdict.values()]
        first = next((value for value in values if isinstance(value, str) and value), None)
        if first:
            return first
    n = len({(e.story["hook_name"], latent) for e in entries for latent, _ in e.latents})
    names = {entry.story["perspective"] for entry in entries}
    noun = "one direction" if len(names) == 1 else f"{len(names)} directions"
    return (
        f"{noun.capitalize()} of {n} latents. Nothing in the folder says how much that is worth: "
        "evaluate it on questions held out."
    )


def _directions(entries: list[_Entry]) -> Html:
    columns = ["perspective", "site", "mode", "positions", "coefficient", "made of"]
    rows = [
        [
            entry.story["perspective"],
            entry.story["hook_name"],
            entry.story["mode"],
            entry.story["positions"],
            entry.story["coefficient"],
            f"{len(entry.latents)} latents"
            if entry.norm is None
            else f"a vector of norm {entry.norm:.3g}",
        ]
        for entry in entries
    ]
    return table(columns, rows)


def _shared(entries: list[_Entry]) -> Html:
    rows = []
    for i, one in enumerate(entries):
        for other in entries[i + 1 :]:
            if one.story["hook_name"] != other.story["hook_name"]:
                continue
            first = {latent for latent, _ in one.latents}
            second = {latent for latent, _ in other.latents}
            both = len(first & second)
            share = both / len(first | second) if first | second else None
            names = f"{one.story['perspective']} / {other.story['perspective']}"
            rows.append([names, one.story["hook_name"], both, share])
    return table(["perspectives", "site", "in both", "share of all"], rows)


def _latents(entries: list[_Entry], evidence: dict[tuple[str, int], dict[str, Any]]) -> Html:
    parts: list[Html] = []
    if not evidence:
        parts.append(
            note(
                f"Contexts are shown where {FEATURES_FILE}, which saepd features --out writes, is "
                "in the folder."
            )
        )
    several = len({entry.story["hook_name"] for entry in entries}) > 1
    for entry in entries:
        name, site = entry.story["perspective"], entry.story["hook_name"]
        shown = entry.latents[:_MOST_LATENTS]
        rows = [[i, value, *_evidence_cells(evidence.get((name, i)))] for i, value in shown]
        columns = ["latent", "value"]
        columns += ["promotes", "score", "stability", "strongest in"] if evidence else []
        width = len(columns)
        title = f"{name}, {site}" if several else name
        parts += [element("h3", title), table(columns, [row[:width] for row in rows])]
        if left_out := len(entry.latents) - len(shown):
            parts.append(note(f"and {left_out} more, with smaller values"))
    return joined(*parts)


def _evidence_cells(row: dict[str, Any] | None) -> list[Any]:
    """What is known of a latent, as cells."""
    if row is None:
        return [None, None, None, None]
    tokens = " ".join(repr(token) for token in row.get("tokens", [])[:6])
    contexts = (
        element("div", f"{context['activation']:.2f} ", context["text"][-_LONGEST_CONTEXT:])
        for context in row.get("contexts", [])[:_N_CONTEXTS]
    )
    return [tokens, row.get("score"), row.get("stability"), joined(*contexts)]


def _configuration(entries: list[_Entry]) -> Html:
    """What the directions have in common, once, and then what is each one's own."""
    stories = [entry.story["lineage"] for entry in entries]
    shared = {
        name: value
        for name, value in stories[0].items()
        if all(story.get(name) == value for story in stories)
    }
    parts = [facts(shared)]
    for entry, story in zip(entries, stories, strict=True):
        differing = {name: value for name, value in story.items() if name not in shared}
        if differing:
            title = f"{entry.story['perspective']}, {entry.story['hook_name']}"
            parts += [element("h3", title), facts(differing)]
    return joined(*parts)
