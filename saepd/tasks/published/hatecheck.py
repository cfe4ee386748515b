"""HateCheck (Roettger et al. 2021, arXiv 2012.15606): functional tests of hate speech detection.

A CSV file with the columns ``case_id``, ``functionality`` (the topic), ``test_case`` and
``label_gold`` ("hateful" or "non-hateful"); the one perspective, ``gold``, is the authors'.

Most cases are one template filled with the names of several groups, and spelling variants are of a
template they refer to. Cases that stem from one template are one group, which a split must not take
apart: `Task.groups` is filled from ``templ_id`` and ``ref_templ_id`` where the file has these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.messages import shortened
from saepd.feedback.schema import Item
from saepd.tasks.published.labels import NO, YES, yes_no_wording
from saepd.tasks.published.sources import BadField, parsed, read_table, text_in
from saepd.tasks.task import LABEL_METRICS, Task

GOLD = "gold"
_LABELS = {"non-hateful": (1.0, 0.0), "hateful": (0.0, 1.0)}


@dataclass(frozen=True)
class _Case:
    item: Item
    template: str
    refers_to: str


def load_hatecheck(path: Path) -> Task:
    """The test cases of a CSV file.

    Raises:
        InputError: the file cannot be read, lacks a column, or has a label of another name.
    """
    rows = read_table(path, ["case_id", "functionality", "test_case", "label_gold"])
    cases = parsed(path, rows, _case)
    refers_to = {case.template: case.refers_to for case in cases if case.template}
    groups = {case.item.id: _root(case.template, refers_to) for case in cases if case.template}
    return Task(
        name="hatecheck",
        items=tuple(case.item for case in cases),
        wording=yes_no_wording("Post", "Is this post hate speech", {GOLD: "experts"}),
        metrics=(*LABEL_METRICS, "mean_functionality_accuracy"),
        positive=YES,
        groups=groups,
    )


def _case(row: dict[str, Any]) -> _Case:
    label = text_in(row, "label_gold")
    if label not in _LABELS:
        raise BadField("label_gold", f"{shortened(label)} is no label: use hateful or non-hateful")
    item = Item(
        id=text_in(row, "case_id"),
        prompt=text_in(row, "test_case"),
        options=(NO, YES),
        topic=text_in(row, "functionality"),
        distributions={GOLD: _LABELS[label]},
    )
    template, refers_to = (str(row.get(name) or "") for name in ("templ_id", "ref_templ_id"))
    return _Case(item, template, refers_to)


def _root(template: str, refers_to: dict[str, str]) -> str:
    """The template that a template stems from, over any number of references."""
    seen = {template}
    while (before := refers_to.get(template)) and before not in seen:
        template = before
        seen.add(template)
    return template
