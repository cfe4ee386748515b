"""What six perspectives cost in the lm-evaluation-harness, beside a run without any.

    python scripts/harness_cost.py --out artifacts/results/harness.json

The survey's questions are a multiple-choice task. The harness's own ``hf`` model answers them, then
saepd's base alone, then the base, six perspectives and their merge in one run. Seconds are of the
processor, with one thread. Needs the extra ``lm-eval``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import saepd
from saepd.common.files import write_atomically, write_json
from saepd.directions.direction import Direction
from saepd.models.packaged import DEFAULT_MODEL
from saepd.models.source import find_model

K, SITE = 6, "blocks.15.hook_resid_post"
_TASK = """\
task: survey
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_target: label
doc_to_choice: options
target_delimiter: " "
metric_list: [{{metric: acc}}]
"""


def write_task(folder: Path, copies: int) -> None:
    """The survey's questions in the harness's form; the label is what most Independents say."""
    rows = []
    # No two questions are the same, since the same is scored once.
    for wave, item in product(range(1, copies + 1), saepd.survey_items()):
        shares = (item.distributions or {})["Independent"]
        prompt = f"Survey {wave} asked: {item.prompt}\nMost people answered:"
        label = shares.index(max(shares))
        rows.append({"prompt": prompt, "options": item.options, "label": label})
    data = folder / "survey.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "survey.yaml").write_text(_TASK.format(data=data))


def six_directions(model: Any) -> list[Direction]:
    """Random vectors at one site, each as strong as moves neutral text by .1 nats."""
    generator = torch.Generator().manual_seed(0)
    directions = []
    for i in range(K):
        vector = torch.randn(int(model.cfg.d_model), generator=generator)
        edit = saepd.AddVector(vector / vector.norm())
        directions.append(Direction(f"perspective {i + 1}", SITE, edit))
    return list(saepd.fit_kl_budget(model, directions, 0.1))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run gives, and the processor seconds it takes."""
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def measure(copies: int) -> dict[str, Any]:
    """Seconds of each way, and how far the base's scores are from the harness's own model's."""
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from saepd.interchange.harness.model import run_harness
    from saepd.interchange.harness.shared import SharedRun

    torch.set_num_threads(1)
    model = saepd.load_model(device="cpu")
    directions = six_directions(model)
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder)
        write_task(tasks, copies)
        harness_model = HFLM(
            pretrained=find_model(DEFAULT_MODEL)[0], dtype="float32", device="cpu", batch_size=16
        )
        manager = TaskManager(include_path=str(tasks))
        theirs, hf_seconds = timed(
            lambda: lm_eval.simple_evaluate(
                harness_model, tasks=["survey"], task_manager=manager, bootstrap_iters=0
            )
        )

        def ours(given: list[Direction]) -> Any:
            return run_harness(SharedRun(model, given), ["survey"], include_path=tasks)

        alone, base_seconds = timed(lambda: ours([]))
        together, seconds = timed(lambda: ours(directions))
    samples = {s["doc_id"]: s["filtered_resps"] for s in together["base"]["samples"]["survey"]}
    apart = max(
        abs(float(a[0]) - float(b[0]))
        for s in theirs["samples"]["survey"]
        for a, b in zip(s["filtered_resps"], samples[s["doc_id"]], strict=True)
    )
    return {
        "lm_eval": lm_eval.__version__,
        "questions": len(samples),
        "seconds": {"hf": hf_seconds, "base": base_seconds, "base, six and merge": seconds},
        "ratio": seconds / base_seconds,
        "ratio_to_hf": seconds / hf_seconds,
        "furthest_from_hf": apart,
        "accuracy": {
            "hf": theirs["results"]["survey"]["acc,none"],
            "base alone": alone["base"]["results"]["survey"]["acc,none"],
            **{name: one["results"]["survey"]["acc,none"] for name, one in together.items()},
        },
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    seconds = report["seconds"]
    rows = [
        ("the harness's `hf`", seconds["hf"], report["accuracy"]["hf"]),
        ("saepd, base alone", seconds["base"], report["accuracy"]["base alone"]),
        (
            "saepd, base, six perspectives and merge",
            seconds["base, six and merge"],
            report["accuracy"]["base"],
        ),
    ]
    lines = ["| run | processor seconds | accuracy of the base |", "| --- | --- | --- |"]
    lines += [f"| {name} | {taken:.1f} | {accuracy:.3f} |" for name, taken, accuracy in rows]
    lines.append(
        f"\n{report['questions']} questions; six perspectives take {report['ratio']:.2f} times the "
        f"base alone and {report['ratio_to_hf']:.2f} times `hf`. The base's log-likelihoods are "
        f"within {report['furthest_from_hf']:.1e} nats of `hf`."
    )
    return "\n".join([*lines, ""])


def main() -> int:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON; a table is written beside it"
    )
    parser.add_argument("--copies", type=int, default=4, help="how often each question is asked")
    arguments = parser.parse_args()
    report = measure(arguments.copies)
    write_json(arguments.out, report)
    write_atomically(arguments.out.with_suffix(".md"), table(report).encode())
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
