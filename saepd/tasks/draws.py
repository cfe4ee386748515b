"""Draw sparse feedback for a task: a few answers of each perspective to the questions given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Feedback, Item, fingerprint
from saepd.feedback.splits import question_key
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
    """Draw n rows of feedback of each perspective, each about another question.

    A perspective's draw depends on the questions it may be about and the seed only: not on their
    order, nor on which other perspectives there are. A smaller draw is the beginning of a larger
    one, and a question's place in it does not depend on which other questions there are.

    Args:
        task: Where the answers come from.
        item_ids: Items the rows may be about, as the training side of a split.
        n: Rows per perspective.
        kind: ``answer``: each row is one person's answer, a row of the task's own feedback where
            the perspective has any, else drawn from its gold distribution. ``distribution``: each
            row is the whole gold distribution. Both kinds draw the same questions wherever a
            perspective has both for all of them.
        seed: Any integer.
        perspectives: Whose rows to draw, in which order; everybody's, in the task's order, if None.

    Returns:
        n rows of the first perspective, then n of the next. Items with the same prompt count as
        one question, of which one item is drawn.

    Raises:
        InputError: an unknown kind, item or perspective, n below 1, or a perspective has answered
            fewer than n of the questions.
    """
    if kind not in ("answer", "distribution"):
        raise InputError(f"unknown kind of feedback {kind!r}: use answer or distribution")
    if n < 1:
        raise InputError(f"cannot draw {n} rows of feedback: draw at least 1 per perspective")
    if unknown := set(item_ids) - task.by_id.keys():
        raise InputError(
            f"the task {task.name} has no item {shortened(min(unknown))}: use ids of its items"
        )
    task.check_perspectives(perspectives or ())
    rows = _written(task, set(item_ids))
    written_by = {row.perspective for row in task.feedback if row.answer or row.comment}
    drawn: list[Feedback] = []
    for perspective in task.perspectives if perspectives is None else perspectives:
        real = kind == "answer" and perspective in written_by
        if real:
            asked = [item for name, item in rows if name == perspective]
        else:
            asked = [i for i in set(item_ids) if perspective in task.by_id[i].distributions]
        chosen = _different_questions(task, asked, n, seed, perspective)
        if len(chosen) < n:
            raise InputError(
                f"cannot draw {n} questions of perspective {shortened(perspective)}: it has "
                f"{'an answer' if kind == 'answer' else 'a distribution'} to {len(chosen)} of "
                "those given; draw fewer, or give more items"
            )
        for item in chosen:
            if real:
                # The smallest hash is a fair draw that more rows of others do not change.
                own = rows[perspective, item.id]
                drawn.append(min(own, key=lambda row: fingerprint(str(seed), "row", row.id)))
            else:
                drawn.append(_from_gold(item, perspective, kind, seed))
    return drawn


def _written(task: Task, item_ids: Collection[str]) -> dict[tuple[str, str], list[Feedback]]:
    """(perspective, item id) -> what people said; a row that is a distribution is nobody's own."""
    rows: dict[tuple[str, str], list[Feedback]] = {}
    for row in task.feedback:
        if row.item in item_ids and (row.answer or row.comment):
            rows.setdefault((row.perspective, row.item), []).append(row)
    return rows


def _different_questions(
    task: Task, asked: Sequence[str], n: int, seed: int, perspective: str
) -> list[Item]:
    """At most n of the items, in an order of the seed's, no question twice."""
    chosen: dict[str, Item] = {}
    for id_ in sorted(asked, key=lambda id_: (fingerprint(str(seed), perspective, id_), id_)):
        item = task.by_id[id_]
        chosen.setdefault(question_key(item.prompt), item)
        if len(chosen) == n:
            break
    return list(chosen.values())


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
