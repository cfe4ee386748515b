"""How a sweep scales: points per minute with 1 and 2 workers, and on paper for a larger model.

    python benchmarks/sweep_scaling.py --out artifacts/results

The measured part runs scripts/sweeps/survey.yaml through Ray on this machine, one thread a worker,
with an empty cache each time; rounds take turns. The paper part counts floating-point operations
and loading time from the assumptions that are written into the table: nothing of it was run.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saepd.common.files import write_atomically, write_json
from saepd.sweeps.config import RunConfig
from saepd.sweeps.results.frame import reuse_by_node
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.sweep_file import load_sweep

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "scripts" / "sweeps" / "survey.yaml"


@dataclass(frozen=True)
class Assumed:
    """What the paper calculation rests on.

    Attributes:
        parameters: Weights of the model; a token takes twice as many operations.
        flops: Operations a second that a GPU reaches in practice (bfloat16, a quarter of an A100's
            peak).
        load_seconds: Reading weights and SAE, once a worker.
        prefixes: Different sites.
        units: Different directions and coefficients: runs of the branches.
        merges: Points of each unit.
        items: Questions that are scored.
        perspectives: Branches beside the base.
        prompt_tokens: Of a question.
        option_tokens: Of all its options together.
        feedback_texts: Texts that are encoded for the directions of one site.
        text_tokens: Of such a text.
        upper_share: Of the blocks that branches run through.
        readout_seconds: Of one point, on a CPU core beside each GPU.
    """

    parameters: float = 8e9
    flops: float = 8e13
    load_seconds: float = 60.0
    prefixes: int = 8
    units: int = 8 * 8 * 8
    merges: int = 6
    items: int = 1000
    perspectives: int = 6
    prompt_tokens: int = 100
    option_tokens: int = 20
    feedback_texts: int = 1200
    text_tokens: int = 120
    upper_share: float = 0.5
    readout_seconds: float = 0.2


def on_paper(assumed: Assumed, gpus: int) -> dict[str, float]:
    """Minutes and points per minute of a sweep on some GPUs, one worker each.

    Units are dealt evenly. A worker captures the prefix of every site that it has units of, so more
    workers than sites capture some prefix more than once.
    """
    a = assumed
    second = 2 * a.parameters / a.flops
    prefix = a.items * a.prompt_tokens * (1 - a.upper_share) * second
    encode = a.feedback_texts * a.text_tokens * (1 - a.upper_share) * second
    tail = 1 + a.option_tokens
    unit = a.items * (1 + a.perspectives) * tail * a.upper_share * second
    unit += a.merges * a.readout_seconds
    per_worker = math.ceil(a.units / gpus)
    sites = max(1, math.ceil(a.prefixes / gpus))
    # Workers that share a site wait for the one that encodes its feedback.
    seconds = a.load_seconds + sites * (prefix + encode) + per_worker * unit
    points = a.units * a.merges
    whole = a.items * (a.prompt_tokens + tail) * (1 + a.perspectives) * second
    alone = points * (whole + encode / (1 - a.upper_share) + a.readout_seconds)
    return {
        "minutes": seconds / 60,
        "points_per_minute": 60 * points / seconds,
        "minutes_each_point_alone": (a.load_seconds + alone / gpus) / 60,
    }


def measure(workers: int, folder: Path) -> dict[str, Any]:
    """One run with an empty cache."""
    firsts: list[float] = []
    start = time.perf_counter()

    def note(_: str, step: int, steps: int) -> None:
        if step == 1:
            firsts.append(time.perf_counter() - start)

    done = run_sweep(load_sweep(SWEEP), folder, RunConfig("ray", workers=workers), note)
    seconds = time.perf_counter() - start
    steady = (done.n_points - 1) / (seconds - firsts[0])
    return {
        "workers": workers,
        "n_points": done.n_points,
        "seconds": round(seconds, 1),
        "seconds_to_first_point": round(firsts[0], 1),
        "points_per_minute": round(60 * done.n_points / seconds, 1),
        "points_per_minute_after_the_first": round(60 * steady, 1),
        "prefix_reuse": {k[:8]: round(v, 2) for k, v in reuse_by_node(folder).items()},
    }


def table(runs: list[dict[str, Any]], assumed: Assumed, load: float) -> str:
    """Both parts as Markdown."""
    lines = [
        "| workers, measured | points per minute | after the first point | to the first point |",
        "| --- | --- | --- | --- |",
    ]
    for n in sorted({run["workers"] for run in runs}):
        of_workers = [run for run in runs if run["workers"] == n]
        whole, steady, first = (
            statistics.median(run[key] for run in of_workers)
            for key in (
                "points_per_minute",
                "points_per_minute_after_the_first",
                "seconds_to_first_point",
            )
        )
        lines.append(f"| {n} | {whole:.1f} | {steady:.1f} | {first:.0f} s |")
    lines += [
        "",
        f"{os.cpu_count()} cores, whose load average over the last minutes was {load:.1f}: above "
        "their number, other work took its share of both rows.",
        "",
        "| GPUs, on paper, 8B | minutes | points per minute | minutes, each point alone |",
        "| --- | --- | --- | --- |",
    ]
    for n in (1, 8, 64):
        on_gpus = on_paper(assumed, n)
        minutes, alone = on_gpus["minutes"], on_gpus["minutes_each_point_alone"]
        lines.append(f"| {n} | {minutes:.0f} | {on_gpus['points_per_minute']:.0f} | {alone:.0f} |")
    assumptions = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in asdict(assumed).items())
    lines += ["", f"Assumed for the second table, of which nothing was run: {assumptions}."]
    return "\n".join(lines)


def main() -> int:
    """Measure, and write sweep_scaling.json and sweep_scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(measure(workers, Path(folder)))
                print(runs[-1], flush=True)
    assumed = Assumed()
    result = {
        "runs": runs,
        "load_average": os.getloadavg()[2],
        "assumed": asdict(assumed),
        "on_paper": {n: on_paper(assumed, n) for n in (1, 8, 64)},
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    write_json(options.out / "sweep_scaling.json", result)
    text = table(runs, assumed, result["load_average"]) + "\n"
    write_atomically(options.out / "sweep_scaling.md", text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
