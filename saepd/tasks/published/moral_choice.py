"""Choices between two actions, in the form of MoralChoice (Scherrer et al. 2023, arXiv 2307.14324).

A CSV or JSONL file. The columns ``context`` (or ``scenario``), ``action1`` and ``action2`` are
MoralChoice's own; ``perspective`` and one of ``share`` and ``answer`` say who chose what, which
MoralChoice itself does not. ``share`` is the share of the perspective that chose the first action,
from 0 to 1, in one row for each question and perspective. ``answer`` is one person's choice
(``action1`` or ``action2``, or the action's text), in as many rows as there are people; these rows
are the task's feedback, and their tally the gold distribution. ``topic`` (or MoralChoice's
``ambiguity``) is the topic. Other columns are ignored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.texts import fingerprint
from saepd.tasks.published.opinions import REPEATED_OPTIONS
from saepd.tasks.published.sources import BadField, parsed, read_table, text_in
from saepd.tasks.task import OPINION_METRICS, Task, Wording

_WORDING = Wording(
    plain="{prompt}\nWhat should be done? Answer:",
    chat="{prompt}\nWhat should be done?",
    persona="{prompt}\nWhat should be done according to {perspective}? Answer:",
)


@dataclass(frozen=True)
class _Choice:
    context: str
    actions: tuple[str, str]
    perspective: str
    topic: str
    answer: str | None
    share: float | None

    @property
    def item(self) -> str:
        return f"{fingerprint(self.context, *self.actions):016x}"


def load_moral_choice(path: Path) -> Task:
    """The choices of a file.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has an answer that is neither
            action, a share out of range, or both where there should be one.
    """
    rows = read_table(path, ["action1", "action2", "perspective"])
    left_out: Counter[str] = Counter()
    questions: dict[str, list[_Choice]] = {}
    for choice in parsed(path, rows, _parser()):
        if choice.actions[0] == choice.actions[1]:
            left_out[REPEATED_OPTIONS] += 1
        else:
            questions.setdefault(choice.item, []).append(choice)
    return Task(
        name="moralchoice",
        items=tuple(_item(path, choices) for choices in questions.values()),
        wording=_WORDING,
        metrics=OPINION_METRICS[:2],
        feedback=tuple(row for choices in questions.values() for row in _feedback(choices)),
        left_out=dict(left_out),
    )


def _parser() -> Callable[[dict[str, Any]], _Choice]:
    seen: set[tuple[str, str]] = set()

    def choice_in(row: dict[str, Any]) -> _Choice:
        answered, shared = (row.get(name) not in (None, "") for name in ("answer", "share"))
        if answered == shared:
            raise BadField("answer", "give either an answer or a share in each row")
        topic = "topic" if row.get("topic") else "ambiguity"
        actions = (text_in(row, "action1"), text_in(row, "action2"))
        choice = _Choice(
            context=text_in(row, "scenario" if row.get("scenario") else "context"),
            actions=actions,
            perspective=text_in(row, "perspective"),
            topic=text_in(row, topic) if row.get(topic) else "",
            answer=_answer(row, actions) if answered else None,
            share=_share(row["share"]) if shared else None,
        )
        if shared and (choice.item, choice.perspective) in seen:
            raise BadField("share", "given before for this question and perspective: give it once")
        seen.add((choice.item, choice.perspective))
        return choice

    return choice_in


def _answer(row: dict[str, Any], actions: tuple[str, str]) -> str:
    answer = text_in(row, "answer")
    named = {"action1": actions[0], "action2": actions[1], **{text: text for text in actions}}
    if answer not in named:
        raise BadField(
            "answer", f"{shortened(answer)} is neither action: write action1, action2 or its text"
        )
    return named[answer]


def _share(value: object) -> float:
    try:
        share = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise BadField("share", f"{shortened(value)} is no share: write a number from 0 to 1")
    return share


def _item(path: Path, choices: list[_Choice]) -> Item:
    first = choices[0]
    golds: dict[str, tuple[float, float]] = {}
    counts: dict[str, int] = {}
    for choice in choices:
        if choice.share is not None:
            golds[choice.perspective] = (choice.share, 1 - choice.share)
    votes: dict[str, Counter[str]] = {}
    for choice in choices:
        if choice.answer:
            votes.setdefault(choice.perspective, Counter())[choice.answer] += 1
    if both := golds.keys() & votes.keys():
        raise InputError(
            f"{path}: {shortened(min(both))} has both a share and answers for "
            f"{shortened(first.context)}: give one of the two"
        )
    for perspective, count in votes.items():
        counts[perspective] = count.total()
        share = count[first.actions[0]] / count.total()
        golds[perspective] = (share, 1 - share)
    return Item(
        id=first.item,
        prompt=first.context,
        options=first.actions,
        topic=first.topic,
        distributions=golds,
        counts=counts,
    )


def _feedback(choices: list[_Choice]) -> list[Feedback]:
    return [
        Feedback(
            id=f"{choice.item}-{choice.perspective}-{number}",
            item=choice.item,
            perspective=choice.perspective,
            prompt=choice.context,
            options=choice.actions,
            answer=choice.answer,
        )
        for number, choice in enumerate(choices, 1)
        if choice.answer
    ]
