"""The report of a triage: which items need a person, why, and the neediest worked one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.html import Html, bar, element, facts, joined, note, number, table
from saepd.pages.page import Section

TRIAGE_FILE = "triage.jsonl"
SETTINGS_FILE = "triage.json"
_N_WORKED = 5
_MOST_ROWS = 300
_LONGEST_PROMPT = 1500


def triage_sections(folder: Path) -> tuple[str, str, list[Section]]:
    """Title, finding and parts of a triage's report.

    Raises:
        InputError: the folder is not one that a triage wrote.
    """
    path = folder / TRIAGE_FILE
    # Only at line feeds: a text may hold other separators.
    rows = [json.loads(line) for line in read_text(path).split("\n") if line.strip()]
    if not rows:
        raise InputError(f"{path} lists no items: triage some")
    sections = _sections(rows)
    # A triage of an earlier version left none.
    if (folder / SETTINGS_FILE).is_file():
        settings = facts(json.loads(read_text(folder / SETTINGS_FILE)))
        sections.append(Section("Configuration and versions", settings))
    return f"Triage of {len(rows)} items", _lead(rows), sections


def _lead(rows: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        for reason in row["reasons"]:
            counts[reason] = counts.get(reason, 0) + 1
    reasons = ", ".join(f"{reason} ({n})" for reason, n in sorted(counts.items(), key=_by_count))
    return f"{rows[0]['id']!r} needs a person most. Reasons: {reasons}."


def _by_count(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def _sections(rows: list[dict[str, Any]]) -> list[Section]:
    reasons = list(rows[0]["of_reason"])
    cells = [
        [
            row["rank"],
            bar(row["need"]),
            row["id"],
            row["prompt"][:_LONGEST_PROMPT],
            *(row["of_reason"].get(reason) for reason in reasons),
            row["why"],
        ]
        for row in rows[:_MOST_ROWS]
    ]
    left_out = len(rows) - len(cells)
    more = note(f"and {left_out} more in {TRIAGE_FILE}") if left_out else ""
    ranking = joined(table(["rank", "need", "item", "question", *reasons, "why"], cells), more)
    worked = joined(*(_worked(row) for row in rows[:_N_WORKED]))
    meaning = note(
        "Need is the mean rank over the reasons that are known, 1 the most; so is each reason's "
        "number. Scores below are in the units of saepd triage."
    )
    return [
        Section("Ranking", joined(meaning, ranking)),
        Section("Five items worked", worked),
    ]


def _worked(row: dict[str, Any]) -> Html:
    cells = [
        [name, *(bar(p) if p is not None else number(None) for p in shares)]
        for name, shares in row["branches"].items()
    ]
    flips = {f"flipped by {name} at": value for name, value in row["flip"].items()}
    return joined(
        element("h3", f"{row['rank']}. {row['prompt'][:_LONGEST_PROMPT]}"),
        table(["branch", *row["answers"]], cells),
        facts({"why": row["why"], **row["scores"], **flips}),
    )
