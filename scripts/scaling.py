"""Measure how time and memory of what needs no model grow with rows, items and perspectives.

Each step is run at one, ten and a hundred times its usual size. A step that grows in proportion
takes ten times as long at ten times the size; one that grows with the square, a hundred times.

    python scripts/scaling.py --out artifacts/results/scaling.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saepd.common.files import write_atomically, write_json
from saepd.feedback.accepting import as_feedback
from saepd.feedback.reading import feedback_hash, load_feedback, load_items, write_feedback
from saepd.feedback.sample import sample_feedback
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import split_questions
from saepd.tasks.draws import draw_feedback
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task

FACTORS = (1, 10, 100)
OPTIONS = ("Yes", "No", "Unsure")

# What is measured at a size: made ready first, so that only the step itself is timed.
Prepared = Callable[[], object]
Step = Callable[[int, Path], Prepared]


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


def _read(suffix: str) -> Step:
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


def _read_items(size: int, folder: Path) -> Prepared:
    path = folder / "items.jsonl"
    question = {"prompt": "Is it good?", "options": OPTIONS, "distribution": [0.5, 0.25, 0.25]}
    rows = [question | {"id": f"q{i // 3}", "perspective": f"group {i % 3}"} for i in range(size)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return lambda: load_items(path)


def _draw(kind: Any, n_items: int, n_perspectives: int, n_rows: int = 0) -> Prepared:
    task = _task(n_items, n_perspectives, n_rows)
    ids = [item.id for item in task.items]
    return lambda: draw_feedback(task, ids, 5, kind, 0)


# Name -> (what its size counts, size at factor 1, how it is prepared).
STEPS: dict[str, tuple[str, int, Step]] = {
    "read feedback, JSONL": ("rows", 200, _read(".jsonl")),
    "read feedback, CSV": ("rows", 200, _read(".csv")),
    "read feedback, every row bad": ("rows", 200, _read_bad),
    "read items": ("rows", 200, _read_items),
    "accept rows": ("rows", 200, lambda n, _: _bound(as_feedback, feedback_rows(n))),
    "hash rows": ("rows", 200, lambda n, _: _bound(feedback_hash, feedback_rows(n))),
    "sample rows": ("rows", 200, lambda n, _: _bound(sample_feedback, feedback_rows(n), 50, 0)),
    "sample rows, many perspectives": (
        "perspectives", 3,
        lambda n, _: _bound(sample_feedback, feedback_rows(20 * n, n), 5, 0),
    ),
    "split questions": ("items", 100, lambda n, _: _bound(split_questions, items(n), 0.5, 0)),
    "make a task": ("items", 100, lambda n, _: _bound(_task, n, 3, 3 * n)),
    "keep every perspective": (
        "perspectives", 3,
        lambda n, _: _bound(Task.only, _task(20, n), [f"group {i}" for i in range(n)]),
    ),
    "draw answers": ("items", 100, lambda n, _: _draw("answer", n, 3)),
    "draw people's own answers": ("perspectives", 3, lambda n, _: _draw("answer", 20, n, 20 * n)),
    "draw distributions": ("perspectives", 3, lambda n, _: _draw("distribution", 20, n)),
}  # fmt: skip


def _bound(function: Callable[..., object], *arguments: object) -> Prepared:
    return lambda: function(*arguments)


def measured(step: Step, size: int) -> tuple[float, float]:
    """(seconds of processor time, megabytes at the peak) of one step, in a run each."""
    with tempfile.TemporaryDirectory() as folder:
        run = step(size, Path(folder))
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        run = step(size, Path(folder))
        tracemalloc.start()
        try:
            run()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    return seconds, peak / 1e6


def table(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    heads = ["step", "size", *(f"{n} times: s, MB" for n in FACTORS), "last tenfold takes"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    for name, one in found.items():
        cells = [
            f"{s:.3f}, {mb:.1f}" for s, mb in zip(one["seconds"], one["megabytes"], strict=True)
        ]
        ratio = one["seconds"][-1] / max(one["seconds"][-2], 1e-9)
        size = f"{one['base']} {one['unit']}"
        lines.append(f"| {name} | {size} | " + " | ".join(cells) + f" | {ratio:.0f} times |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a .json file; a .md table is written beside it")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name, (unit, base, step) in STEPS.items():
        pairs = [measured(step, base * factor) for factor in FACTORS]
        seconds, megabytes = ([round(p[k], 4) for p in pairs] for k in (0, 1))
        found[name] = {"unit": unit, "base": base, "seconds": seconds, "megabytes": megabytes}
        print(f"{name}: {seconds} s, {megabytes} MB", file=sys.stderr)
    if arguments.out:
        write_json(arguments.out, {"factors": FACTORS, "steps": found})
        write_atomically(arguments.out.with_suffix(".md"), table(found).encode())
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
