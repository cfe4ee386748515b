"""``saepd lm-eval``: tasks of the lm-evaluation-harness on every branch, in one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saepd.cli.options import check_file, print_json, print_table
from saepd.cli.steering import SteeringOptions
from saepd.common.errors import InputError
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig

EXAMPLES = """\
  saepd lm-eval --tasks arc_easy --limit 100 --steering steering
  saepd lm-eval --tasks mine --include-path tasks --steering steering

The harness's own command line, with one branch at a time:

  python -m saepd.interchange.harness --model saepd --tasks arc_easy \\
      --model_args steering=steering,branch=merged"""

FIRST = ("tasks", "steering", "include_path", "limit", "n_shots", "out", "json")


@dataclass(kw_only=True)
class Options:
    """Which tasks are run.

    Attributes:
        tasks: Names of tasks of the harness, or of those in the folder of tasks.
        include_path: Folder of task files of one's own, in the harness's form.
        limit: Most questions of each task; all if not given.
        n_shots: Examples in front of each question; as many as the task says if not given.
        out: JSON file that gets the harness's results of every branch, samples included.
        json: Print the results as JSON.
    """

    tasks: list[str]
    include_path: Path | None = None
    limit: int | None = None
    n_shots: int | None = None
    out: Path | None = None
    json: bool = False
    directions: SteeringOptions
    where: ModelConfig = field(default_factory=ModelConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)


def run(options: Options) -> None:
    """Run the harness once a branch, on scores that are computed once for all."""
    try:
        import lm_eval  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "the lm-evaluation-harness is not installed: pip install 'saepd[lm-eval]'"
        ) from error
    check_file(options.out)
    if options.include_path is not None and not options.include_path.is_dir():
        raise InputError(f"--include-path {options.include_path} is no folder of task files")
    model, directions = options.directions.load(options.where)
    from saepd.common.files import write_json
    from saepd.common.json_values import as_json
    from saepd.interchange.harness.model import run_harness
    from saepd.interchange.harness.paired import paired_with_base
    from saepd.interchange.harness.shared import SharedRun

    results = run_harness(
        SharedRun(model, directions, options.merge),
        options.tasks,
        include_path=options.include_path,
        limit=options.limit,
        num_fewshot=options.n_shots,
    )
    paired = paired_with_base(results)
    summary = {
        "branches": {name: result["results"] for name, result in results.items()},
        "against_base": paired,
    }
    if options.out is not None:
        samples = {name: result["samples"] for name, result in results.items()}
        # Documents and metrics of tasks hold whatever their authors put into them.
        write_json(options.out, as_json({**summary, "samples": samples}))
    if options.json:
        print_json(as_json(summary))
        return
    rows = []
    for name, result in results.items():
        for task, scores in result["results"].items():
            for metric, value in _numbers(scores).items():
                against = paired.get(name, {}).get(task, {}).get(metric)
                rows.append([name, task, metric, f"{value:.3f}", _interval(against)])
    columns = ["branch", "task", "metric", "value", "against the base (95%)"]
    print_table("lm-evaluation-harness", columns, rows, {"task", "metric"})


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task; their names hold the filter after a comma."""
    return {
        name.removesuffix(",none"): value
        for name, value in scores.items()
        if isinstance(value, float) and "_stderr" not in name
    }


def _interval(against: dict[str, float] | None) -> str:
    if against is None:
        return ""
    return f"{against['estimate']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}]"
