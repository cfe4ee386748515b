"""LIAR (Wang 2017, arXiv 1705.00648): short political statements with a fact-checker's verdict.

A TSV file without a header, one statement a line: id, label, statement, and eleven columns about
the speaker and the occasion, which are not used. Quotes are part of the text, never of the format.
The splits of a folder are the files named after one; an item's topic is its split.

``liar`` asks for the verdict, one of six in their natural order. ``liar-binary`` asks whether a
statement is misinformation: Yes for the three verdicts on the false side (pants on fire, false,
barely true, the last of which stands for "mostly false"), No for half true and above. The one
perspective is the fact-checkers.

A statement that is there twice is one item; where its labels differ, it is left out and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from saepd.common.messages import shortened
from saepd.feedback.schema import Item
from saepd.feedback.tables import RawRow
from saepd.tasks.published.labels import NO, YES, yes_no_wording
from saepd.tasks.published.sources import (
    BadField,
    clean,
    parsed,
    published_text,
    split_files,
    split_name,
)
from saepd.tasks.task import LABEL_METRICS, Task, Wording

FACT_CHECKERS = "fact-checkers"
REPEATED = "a statement given before, with the same label"
CONTRADICTED = "a statement with differing labels"
VERDICTS = {
    "pants-fire": "Pants on fire",
    "false": "False",
    "barely-true": "Barely true",
    "half-true": "Half true",
    "mostly-true": "Mostly true",
    "true": "True",
}
_BINARY = {label: YES if i < 3 else NO for i, label in enumerate(VERDICTS)}
_VERDICT_WORDING = Wording(
    plain='Statement: "{prompt}"\nThe verdict on this statement is:',
    chat=(
        'Statement: "{prompt}"\nWhat is the verdict on this statement, from Pants on fire to True?'
    ),
    persona='Statement: "{prompt}"\nThe verdict of {perspective} on this statement is:',
)


def load_liar(path: Path) -> Task:
    """The statements with their six verdicts, in order from Pants on fire to True.

    Raises:
        InputError: the file cannot be read, or a row has too few columns or an unknown label.
    """
    options = tuple(VERDICTS.values())
    items, left_out = _items(path, VERDICTS, options)
    return Task(
        name="liar",
        items=items,
        wording=_VERDICT_WORDING,
        metrics=("accuracy", "macro_f1", "nll", "expected_calibration_error", "wasserstein"),
        ordinal={item.id: tuple(range(len(options))) for item in items},
        left_out=left_out,
    )


def load_liar_binary(path: Path) -> Task:
    """The statements with whether they are misinformation.

    Raises:
        InputError: as `load_liar`.
    """
    items, left_out = _items(path, _BINARY, (NO, YES))
    return Task(
        name="liar-binary",
        items=items,
        wording=yes_no_wording("Statement", "Is this statement misinformation", {}),
        metrics=LABEL_METRICS,
        positive=YES,
        left_out=left_out,
    )


def _items(
    path: Path, answers: dict[str, str], options: tuple[str, ...]
) -> tuple[tuple[Item, ...], dict[str, int]]:
    statements: dict[str, list[tuple[Item, str]]] = {}
    for file in split_files(path, ".tsv"):
        lines = enumerate(re.split("\r\n|\n|\r", published_text(file)), 1)
        rows: list[RawRow] = [
            (f"line {number}", {"cells": line.split("\t")})
            for number, line in lines
            if line.strip()
        ]
        for id_, label, statement in parsed(file, rows, _cells):
            answer = answers[label]
            gold = tuple(float(option == answer) for option in options)
            item = Item(
                id=id_,
                prompt=statement,
                options=options,
                topic=split_name(file),
                distributions={FACT_CHECKERS: gold},
            )
            statements.setdefault(statement, []).append((item, answer))
    left_out: Counter[str] = Counter()
    items: list[Item] = []
    for same in statements.values():
        if len({answer for _, answer in same}) > 1:
            left_out[CONTRADICTED] += len(same)
            continue
        items.append(same[0][0])
        if len(same) > 1:
            left_out[REPEATED] += len(same) - 1
    return tuple(items), dict(left_out)


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    """(id, label, statement) of one line."""
    cells: list[str] = row["cells"]
    if len(cells) < 3:
        raise BadField("row", f"{len(cells)} column(s): write id, label and statement between tabs")
    id_, label, statement = (clean(cell, "row") for cell in cells[:3])
    if label not in VERDICTS:
        raise BadField("label", f"{shortened(label)} is no label: use one of {', '.join(VERDICTS)}")
    return id_.removesuffix(".json"), label, statement
