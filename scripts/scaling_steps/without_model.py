"""Steps that need no model: reading, checking, sampling, splitting and drawing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saepd.feedback.accepting import as_feedback
from saepd.feedback.reading import feedback_hash, load_feedback, load_items, write_feedback
from saepd.feedback.sample import sample_feedback
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import split_questions
from saepd.tasks.draws import draw_feedback
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task
from scaling_steps.step import Prepared, Step, bound

OPTIONS = ("Yes", "No", "Unsure")


def feedback_rows(n_rows: int, n_perspectives: int = 3, n_items: int = 20) -> list[Feedback]:
    """Rows of made-up people, spread evenly over perspectives and questions."""
    return [
        Feedback(
            id=f"r{i}",
            perspective=f"group {i % n_perspectives}",
            item=f"q{i // n_perspectives % n_items}",
            prompt=f"Is plan {i // n_perspectives % n_items} good?",
            options=OPTIONS,
            answer=OPTIONS[i % 3],
        )
        for i in range(n_rows)
    ]


def items(n_items: int, n_perspectives: int = 3) -> list[Item]:
    """Questions with a gold distribution of every perspective."""
    golds = {f"group {i}": (0.5, 0.25, 0.25) for i in range(n_perspectives)}
    return [
        Item(
            id=f"q{i}",
            prompt=f"Is plan {i} good?",
            options=OPTIONS,
            topic=f"topic {i % 5}",
            distributions=golds,
        )
        for i in range(n_items)
    ]


def _task(n_items: int, n_perspectives: int, n_rows: int = 0) -> Task:
    rows = tuple(feedback_rows(n_rows, n_perspectives, n_items))
    return Task(
        "scaling", tuple(items(n_items, n_perspectives)), SURVEY_WORDING, OPINION_METRICS, rows
    )


def _read(suffix: str) -> Callable[[int, Path], Prepared]:
    def prepare(size: int, folder: Path) -> Prepared:
        path = folder / f"f{suffix}"
        rows = feedback_rows(size)
        if suffix == ".jsonl":
            write_feedback(path, rows)
        else:
            header = "id,perspective,item,prompt,options,answer\n"
            lines = [
                f"{r.id},{r.perspective},{r.item},{r.prompt},{'|'.join(r.options)},{r.answer}\n"
                for r in rows
            ]
            path.write_text(header + "".join(lines))
        return lambda: load_feedback(path)

    return prepare


def _read_bad(size: int, folder: Path) -> Prepared:
    path = folder / "bad.jsonl"
    lines = [json.dumps({"id": f"r{i}", "prompt": f"Q{i}", "answer": i}) for i in range(size)]
    # One good row, since a file without any is refused.
    path.write_text(
        feedback_rows(1)[0].model_dump_json(exclude_none=True) + "\n" + "\n".join(lines)
    )
    return lambda: load_feedback(path, skip_bad=True)


def write_items(path: Path, n_rows: int) -> None:
    """Rows of an items file: what one of three perspectives is known to answer to a question."""
    answers = {"options": OPTIONS, "distribution": [0.5, 0.25, 0.25]}
    rows = [
        answers
        | {"id": f"q{i // 3}", "prompt": f"Is plan {i // 3} good?", "perspective": f"group {i % 3}"}
        for i in range(n_rows)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def _read_items(size: int, folder: Path) -> Prepared:
    path = folder / "items.jsonl"
    write_items(path, size)
    return lambda: load_items(path)


def _draw(kind: Any, n_items: int, n_perspectives: int, n_rows: int = 0) -> Prepared:
    task = _task(n_items, n_perspectives, n_rows)
    ids = [item.id for item in task.items]
    return lambda: draw_feedback(task, ids, 5, kind, 0)


STEPS: dict[str, Step] = {
    "read feedback, JSONL": Step("rows", 200, _read(".jsonl")),
    "read feedback, CSV": Step("rows", 200, _read(".csv")),
    "read feedback, every row bad": Step("rows", 200, _read_bad),
    "read items": Step("rows", 200, _read_items),
    "accept rows": Step("rows", 200, lambda n, _: bound(as_feedback, feedback_rows(n))),
    "hash rows": Step("rows", 200, lambda n, _: bound(feedback_hash, feedback_rows(n))),
    "sample rows": Step("rows", 200, lambda n, _: bound(sample_feedback, feedback_rows(n), 50, 0)),
    "sample rows, many perspectives": Step(
        "perspectives", 3, lambda n, _: bound(sample_feedback, feedback_rows(20 * n, n), 5, 0)
    ),
    "split questions": Step("items", 100, lambda n, _: bound(split_questions, items(n), 0.5, 0)),
    "make a task": Step("items", 100, lambda n, _: bound(_task, n, 3, 3 * n)),
    "keep every perspective": Step(
        "perspectives",
        3,
        lambda n, _: bound(Task.only, _task(20, n), [f"group {i}" for i in range(n)]),
    ),
    "draw answers": Step("items", 100, lambda n, _: _draw("answer", n, 3)),
    "draw people's own answers": Step(
        "perspectives", 3, lambda n, _: _draw("answer", 20, n, 20 * n)
    ),
    "draw distributions": Step("perspectives", 3, lambda n, _: _draw("distribution", 20, n)),
}
