"""Run the tasks of the record, and put their tables where the README takes them from.

    python scripts/reproduce.py --data DATA

Work is kept in out/record, so a run that was stopped goes on. What is quoted goes to
artifacts/results/TASK: summary.json, table.md, and record.json with the command, hardware and time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SURVEY = ["uniform", "train-mean", "train-mean-pooled", "zero-shot", "temperature"]
_SURVEY += ["position-bias", "position-bias-pooled", "position-bias-pooled-and-own"]
_SURVEY += ["fitted-scales", "fitted-scales-random-latents", "fitted-scales-shuffled-labels"]
_SURVEY += ["fitted-dense-vector", "as-fit"]
# One answer for the whole population, beside what `_SURVEY` and `_SHARES` hold.
_PLURAL = ["merged-learned-pluralistic", "merged-learned-mixture", "merged-learned-product"]
_PLURAL += ["merged-learned-fitted-weights", "added-learned-sum", "added-learned-mean"]
_SHARES = ["uniform", "train-mean", "train-mean-pooled", "zero-shot", "zero-shot-persona"]
_SHARES += ["position-bias", "position-bias-pooled", "linear-probe-residual"]
_LABELS = ["uniform", "train-mean", "zero-shot", "zero-shot-persona", "zero-shot-letters"]
_LABELS += ["position-bias", "few-shot", "linear-probe-residual", "linear-probe-latents"]
_LABELS += ["gated-directions", "gated-directions-shuffled-answers"]
_STEERED = ["sae-reconstruction", "difference-in-means", "random-latents"]
_STEERED += ["shuffled-labels", "paper", "paper-without-error-term", "paper-calibrated"]
_STEERED += ["selected-latents", "selected-latents-kl-budget"]
_MERGED = ["pluralistic", "mixture", "product", "cad", "dcd"]
_STEERED += [f"merged{kind}-{name}" for kind in ("", "-with-base") for name in _MERGED]
_FEW_STEERED = ["difference-in-means", "random-latents", "paper"]
_FEW_STEERED += ["selected-latents", "merged-pluralistic", "merged-mixture"]

# Name of the results -> task, its file or folder in the data (none if it is packaged), methods, and
# further options.
RECORD: dict[str, tuple[str, str | None, list[str], str]] = {
    "survey": (
        "gss",
        None,
        [*_SURVEY, *_PLURAL],
        "--draws 5 --block 15",
    ),
    "globalopinionqa_distributions": (
        "globalopinionqa",
        "globalopinionqa.json",
        [*_SURVEY, *_PLURAL],
        "--feedback-kind distribution --draws 5 --limit 60 --block 20",
    ),
    "globalopinionqa_answers": (
        "globalopinionqa",
        "globalopinionqa.json",
        [*_SURVEY, "zero-shot-persona", "contextual-calibration", "few-shot"],
        "--draws 5 --limit 40 --block 20",
    ),
    "globalopinionqa_steered": (
        "globalopinionqa",
        "globalopinionqa.json",
        ["uniform", "train-mean", "zero-shot", "position-bias", *_STEERED],
        "--feedback-kind distribution --draws 5 --limit 40 --block 20",
    ),
    "hs_brexit": (
        "hs-brexit",
        ".",
        [*_LABELS, *_FEW_STEERED, "as-fit"],
        "--draws 5 --limit 150 --block 15",
    ),
    "hs_brexit_distributions": (
        "hs-brexit",
        ".",
        [*_SHARES, "gated-directions", "gated-directions-shuffled-answers", *_PLURAL, "as-fit"],
        "--feedback-kind distribution --draws 5 --limit 150 --block 15",
    ),
    "liar": (
        "liar-binary",
        ".",
        [*_LABELS, "as-fit"],
        "--draws 5 --limit 60 --block 15",
    ),
    "hatecheck": (
        "hatecheck",
        "hatecheck.csv",
        [*_LABELS, "as-fit"],
        "--draws 5 --limit 100 --block 15",
    ),
}


def command(name: str, data: Path, out: Path) -> list[str]:
    """The command that makes one table of the record."""
    task, where, methods, options = RECORD[name]
    arguments = ["evaluate", "--task", task, "--out", str(out / name)]
    arguments += [] if where is None else ["--data", str(data / where)]
    return [*arguments, "--methods", *methods, *shlex.split(options)]


def keep(name: str, out: Path, data: Path) -> None:
    """Copy what is quoted, and say how it came about; other people's data stay where they are."""
    target = ROOT / "artifacts" / "results" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("summary.json", "table.md", "population.md"):
        if (out / name / file).exists():
            shutil.copy(out / name / file, target / file)
    run = json.loads((out / name / "run.json").read_text())
    shown = shlex.join(["saepd", *command(name, data, out)]).replace(str(data), "DATA")
    record = {
        "command": shown.replace(str(out), "out/record"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": run["seconds"],
    }
    path = target / "record.json"
    if not run["seconds"] and path.exists():
        # All was there already; what it took is what an earlier run noted.
        record["seconds"] = json.loads(path.read_text())["seconds"]
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> int:
    """Run what is asked for, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "record")
    parser.add_argument("names", nargs="*", default=list(RECORD), metavar="name")
    options = parser.parse_args()
    for name in options.names:
        if name not in RECORD:
            parser.error(f"no results are called {name}: there are {', '.join(RECORD)}")
        arguments = [sys.executable, "-m", "saepd.cli", *command(name, options.data, options.out)]
        if subprocess.run(arguments, check=False).returncode:
            return 1
        keep(name, options.out, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
