"""HS-Brexit (Akhtar et al. 2021), and hate speech in the form of LeWiDi (SemEval-2023, task 11).

A file is one split: a JSON object of text id -> {``text``, ``annotations`` "0,1,...",
``annotators`` "Ann1,Ann2,...", ``split``, ``other_info``}. ``other_info`` says who belongs where:
``annotators group`` is a list parallel to ``annotators``, in every tweet of HS-Brexit
"group1,group1,group1,group2,group2,group2", and ``group1`` and ``group2`` say what these are:
"target group" and "control group". So Ann1 to Ann3 are of the group that is the target of such
speech and Ann4 to Ann6 are not, and each of the six annotated every tweet. The two groups are the
perspectives, by these names; the source says no more about who the annotators are.

The splits of a folder are the files named after one. They are joined in order of file name; an item
is named ``train-17``, because every split counts its tweets from 1, and its topic is its split, so
that the published split can be told and folds hold as much of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.tables import RawRow
from saepd.tasks.published.labels import NO, YES, yes_no_wording
from saepd.tasks.published.sources import (
    BadField,
    clean,
    parsed,
    published_json,
    split_files,
    split_name,
    text_in,
)
from saepd.tasks.task import LABEL_METRICS, OPINION_METRICS, Task

OPTIONS = (NO, YES)
_NAMES = {
    "target group": "people of the targeted group",
    "control group": "people outside the targeted group",
}


@dataclass(frozen=True)
class _Annotated:
    id: str
    text: str
    split: str
    labels: dict[str, str]  # annotator -> option
    groups: dict[str, str]  # annotator -> name of the annotator's group


def load_lewidi_groups(path: Path) -> Task:
    """The tweets with one perspective for each group of annotators.

    Raises:
        InputError: the file cannot be read or has malformed entries, or does not say who is in
            which group.
    """

    def perspective(row: _Annotated, annotator: str) -> str:
        if annotator not in row.groups:
            raise InputError(
                f"{path}: text {shortened(row.id)} does not say which group {annotator} is in: "
                "load hs-brexit-annotators instead"
            )
        return row.groups[annotator]

    return _task("hs-brexit", path, perspective)


def load_lewidi_annotators(path: Path) -> Task:
    """The tweets with one perspective for each named annotator.

    Raises:
        InputError: the file cannot be read or has malformed entries.
    """
    return _task("hs-brexit-annotators", path, lambda row, annotator: annotator)


def _task(name: str, path: Path, perspective: Callable[[_Annotated, str], str]) -> Task:
    items: list[Item] = []
    feedback: list[Feedback] = []
    for file in split_files(path, ".json"):
        for row in parsed(file, _entries(file), _annotated):
            votes: dict[str, Counter[str]] = {}
            for annotator, answer in row.labels.items():
                group = perspective(row, annotator)
                votes.setdefault(group, Counter())[answer] += 1
                feedback.append(
                    Feedback(
                        id=f"{row.id}-{annotator}",
                        item=row.id,
                        perspective=group,
                        prompt=row.text,
                        options=OPTIONS,
                        answer=answer,
                    )
                )
            items.append(
                Item(
                    id=row.id,
                    prompt=row.text,
                    options=OPTIONS,
                    topic=row.split,
                    distributions={
                        group: tuple(count[option] / count.total() for option in OPTIONS)
                        for group, count in votes.items()
                    },
                    counts={group: count.total() for group, count in votes.items()},
                )
            )
    return Task(
        name=name,
        items=tuple(items),
        wording=yes_no_wording("Tweet", "Is this tweet hate speech", _NAMES),
        metrics=LABEL_METRICS + OPINION_METRICS[:2],
        feedback=tuple(feedback),
        positive=YES,
    )


def _entries(file: Path) -> list[RawRow]:
    entries = published_json(file)
    if not isinstance(entries, dict):
        raise InputError(f'{file} is not an object: LeWiDi files are {{"1": {{"text": ...}}, ...}}')
    rows: list[RawRow] = []
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise InputError(f"{file}, text {shortened(key)}: not an object: write {{...}}")
        rows.append((f"text {shortened(key)}", {"split": split_name(file), **entry, "id": key}))
    return rows


def _annotated(row: dict[str, Any]) -> _Annotated:
    annotators = _listed(row, "annotators")
    labels = _listed(row, "annotations")
    if len(labels) != len(annotators):
        raise BadField(
            "annotations", f"{len(labels)} for {len(annotators)} annotators: give one for each"
        )
    if len(set(annotators)) < len(annotators):
        raise BadField("annotators", "one is there twice: name each once")
    for label in labels:
        if label not in ("0", "1"):
            raise BadField("annotations", f"{shortened(label)} is no label: use 0 (no) or 1 (yes)")
    info = row.get("other_info") or {}
    if not isinstance(info, dict):
        raise BadField("other_info", f"{shortened(info)} is not an object: write {{...}}")
    groups = _listed(info, "annotators group") if info.get("annotators group") else []
    if groups and len(groups) != len(annotators):
        raise BadField(
            "annotators group", f"{len(groups)} for {len(annotators)} annotators: give one for each"
        )
    split = text_in(row, "split")
    return _Annotated(
        id=f"{split}-{row['id']}",
        text=text_in(row, "text"),
        split=split,
        labels={
            annotator: OPTIONS[int(label)]
            for annotator, label in zip(annotators, labels, strict=True)
        },
        groups={
            annotator: clean(str(info.get(group, group)), "other_info")
            for annotator, group in zip(annotators, groups, strict=False)
        },
    )


def _listed(row: dict[str, Any], column: str) -> list[str]:
    names = [name.strip() for name in text_in(row, column).split(",")]
    if "" in names:
        raise BadField(column, "one is empty: separate them by single commas")
    return names
