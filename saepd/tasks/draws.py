"""Draw sparse feedback for a task: a few answers of each perspective to the questions given.

A row is drawn for each question in turn; only where all questions have had their turn and more rows
are asked for, a question gets a second one, of somebody else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import question_key
from saepd.feedback.texts import fingerprint
from saepd.tasks.task import Task

DrawKind = Literal["answer", "distribution"]


def draw_feedback(
    task: Task,
    item_ids: Collection[str],
    n: int,
    kind: DrawKind,
    seed: int,
    perspectives: Sequence[str] | None = None,
) -> list[Feedback]:
    """Draw n rows of feedback of each perspective, spread over the questions.

    A perspective's draw depends on the questions it may be about and the seed only: not on their
    order, nor on which other perspectives there are. A smaller draw is the beginning of a larger
    one, and a question's place among the questions does not depend on which others there are.

    Args:
        task: Where the answers come from.
        item_ids: Items the rows may be about, as the training side of a split.
        n: Rows per perspective.
        kind: ``answer``: each row is one person's answer, a row of the task's own feedback where
            the perspective has any, else drawn from its gold distribution. ``distribution``: each
            row is the whole gold distribution. Both kinds draw the same questions wherever a
            perspective has both for all of them.
        seed: Any integer.
        perspectives: Perspectives whose rows are drawn, in this order; all of the
            task's, in its order, if None.

    Returns:
        n rows of the first perspective, then n of the next. Items with the same prompt are one
        question.

    Raises:
        InputError: an unknown kind, item or perspective, n below 1, or a perspective has fewer
            than n rows (see `rows_to_draw`) about the questions.
    """
    check_kind(kind)
    if n < 1:
        raise InputError(f"cannot draw {n} rows of feedback: draw at least 1 per perspective")
    if unknown := set(item_ids) - task.by_id.keys():
        raise InputError(
            f"the task {task.name} has no item {shortened(min(unknown))}: use ids of its items"
        )
    task.check_perspectives(perspectives or ())
    rows = _written(task, kind, set(item_ids))
    drawn: list[Feedback] = []
    for perspective in task.perspectives if perspectives is None else perspectives:
        if perspective in rows:
            queues = _queues(task, rows[perspective], seed, perspective)
        else:
            golds = {
                id_: [_from_gold(task.by_id[id_], perspective, kind, seed)]
                for id_ in set(item_ids)
                if perspective in task.by_id[id_].distributions
            }
            queues = _queues(task, golds, seed, perspective)
        its_rows = _in_turn(queues, n)
        if len(its_rows) < n:
            raise InputError(
                f"cannot draw {n} rows of perspective {shortened(perspective)}: there are "
                f"{len(its_rows)} {kind}s of its to the questions given; draw fewer, or give more "
                "items"
            )
        drawn += its_rows
    return drawn


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of feedback.

    Raises:
        InputError: naming the two that there are.
    """
    if kind not in get_args(DrawKind):
        raise InputError(
            f"unknown kind of feedback {shortened(kind)}: use {' or '.join(get_args(DrawKind))}"
        )


def rows_to_draw(task: Task, kind: DrawKind) -> dict[str, Counter[str]]:
    """Item id -> perspective -> how many rows `draw_feedback` can draw of its about the item."""
    rows = _written(task, kind, task.by_id.keys())
    counts = {
        item.id: Counter(name for name in item.distributions if name not in rows)
        for item in task.items
    }
    for name, of_each in rows.items():
        for id_, item_rows in of_each.items():
            counts[id_][name] = len(item_rows)
    return counts


def _written(
    task: Task, kind: DrawKind, item_ids: Collection[str]
) -> dict[str, dict[str, list[Feedback]]]:
    """Perspective -> item id -> its people's own rows, for those of whom there are any.

    A row that is a distribution is nobody's own.
    """
    if kind == "distribution":
        return {}
    rows: dict[str, dict[str, list[Feedback]]] = {}
    for row in task.feedback:
        if row.answer or row.comment:
            by_item = rows.setdefault(row.perspective, {})
            if row.item in item_ids:
                by_item.setdefault(row.item, []).append(row)
    return rows


def _queues(
    task: Task, rows: Mapping[str, Sequence[Feedback]], seed: int, perspective: str
) -> list[list[Feedback]]:
    """Of each question, in an order of the seed's, its rows in another order of the seed's."""
    queues: dict[str, list[Feedback]] = {}
    for id_ in sorted(rows, key=lambda id_: (fingerprint(str(seed), perspective, id_), id_)):
        # The smallest hash is a fair draw that more rows of others do not change.
        item_rows = sorted(rows[id_], key=lambda row: fingerprint(str(seed), "row", row.id))
        queues.setdefault(question_key(task.by_id[id_].prompt), []).extend(item_rows)
    return list(queues.values())


def _in_turn(queues: Sequence[Sequence[Feedback]], n: int) -> list[Feedback]:
    """At most n rows: the first of every queue, then every second one, and so on."""
    rounds = itertools.zip_longest(*queues)
    return list(itertools.islice((row for turn in rounds for row in turn if row), n))


def _from_gold(item: Item, perspective: str, kind: DrawKind, seed: int) -> Feedback:
    gold = item.distributions[perspective]
    answer = None
    if kind == "answer":
        rng = np.random.default_rng(fingerprint(str(seed), "answer", perspective, item.id))
        # The first option whose cumulative share is above: one nobody chose never is.
        cumulative = np.cumsum(gold)
        index = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        answer = item.options[int(index)]
    return Feedback(
        id=f"{item.id}-{perspective}",
        item=item.id,
        perspective=perspective,
        prompt=item.prompt,
        options=item.options,
        answer=answer,
        distribution=gold if kind == "distribution" else None,
    )
