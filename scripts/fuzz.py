"""Give every reader damaged, hostile and nonsensical files, and say what came of it.

A file may be read or refused with an `InputError`. Everything else is a failure: another
exception, too much processor time or memory, a file written outside the case's folder, anything
unpickled, code run from data, and a message with a home folder or a token in it.

    python scripts/fuzz.py --cases 20000 --out artifacts/results/fuzz.json
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "scripts"), str(ROOT / "tests")]

from fuzzing.guard import Guard, TooSlowError  # noqa: E402
from fuzzing.mutations import Files, damaged  # noqa: E402
from fuzzing.targets import Target, model_targets, reader_targets  # noqa: E402

from saepd.common.errors import InputError  # noqa: E402
from saepd.common.files import write_atomically, write_json  # noqa: E402

MAX_SECONDS = 10.0
MAX_MEGABYTES = 1500
_SECRET = "secret-that-no-message-may-hold"


def fuzz(targets: list[Target], n_cases: int, first_seed: int, guard: Guard) -> dict[str, Any]:
    """Run the cases, spread over the targets by their weights.

    Returns:
        For each target how many cases were read and refused, and each different failure once, with
        how often it happened and the files of its first case.
    """
    total = sum(target.weight for target in targets)
    report: dict[str, Any] = {"cases": 0, "targets": {}}
    for number, target in enumerate(targets):
        wanted = -(-n_cases * target.weight // total)
        outcome = _fuzz_target(target, wanted, first_seed + number, guard)
        report["targets"][target.name] = outcome
        report["cases"] += outcome["cases"]
    return report


def _fuzz_target(target: Target, wanted: int, first_seed: int, guard: Guard) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    failures: dict[str, dict[str, Any]] = {}
    slowest = 0.0
    before = _peak_megabytes()

    def run(files: Files) -> None:
        nonlocal slowest
        start = time.process_time()
        outcome = run_case(target, files, guard)
        slowest = max(slowest, time.process_time() - start)
        counts["cases"] += 1
        counts[outcome if outcome in ("read", "refused") else "failed"] += 1
        if outcome not in ("read", "refused"):
            shown = {name: repr(content[:2000]) for name, content in files.items()}
            failures.setdefault(outcome, {"times": 0, "files": shown})["times"] += 1

    run(target.files)
    if counts["read"] == 0 and target.weight > 1:
        raise AssertionError(f"the valid files of {target.name} are not read: {failures}")
    round_ = 0
    while counts["cases"] < wanted:
        # Each round is a new seed, since hypothesis ends early when it finds nothing new.
        configured = settings(
            max_examples=max(1, wanted - counts["cases"]),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
        )
        case = damaged(target.files).map(target.mend)
        seed(first_seed * 1000 + round_)(configured(given(case)(run)))()
        round_ += 1
    return {
        "cases": counts["cases"],
        "read": counts["read"],
        "refused": counts["refused"],
        "failed": counts["failed"],
        "slowest_seconds": round(slowest, 2),
        "peak_growth_megabytes": round(_peak_megabytes() - before),
        "failures": failures,
    }


def run_case(target: Target, files: Files, guard: Guard) -> str:
    """One case: ``read``, ``refused``, or what went wrong and where."""
    with tempfile.TemporaryDirectory(prefix="saepd-fuzz-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        before = _peak_megabytes()
        outcome = "read"
        try:
            with guard.watching(folder, MAX_SECONDS):
                target.read(folder)
        except InputError as error:
            outcome = _outcome_of_message(str(error).replace(str(folder), ""))
        except TooSlowError:
            outcome = f"took more than {MAX_SECONDS} s"
        except (Exception, RecursionError) as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "saepd" in f.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "elsewhere"
            outcome = f"{type(error).__name__} at {place}"
        if guard.violations:
            outcome = guard.violations[0].replace(str(folder), "FOLDER")
        elif _peak_megabytes() - before > MAX_MEGABYTES:
            outcome = f"took more than {MAX_MEGABYTES} MB"
        return outcome


def _outcome_of_message(message: str) -> str:
    """Whether a message keeps to itself what is not the user's file."""
    for private in (_SECRET, str(ROOT), sys.prefix, os.environ["HOME"]):
        if private in message:
            return f"a message names {private}: {message[:200]}"
    return "refused" if message.strip() else "an empty message"


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "| reader | cases | read | refused | failed | slowest, s | memory grew, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, target in report["targets"].items():
        cells = [target[key] for key in ("cases", "read", "refused", "failed")]
        cells += [f"{target['slowest_seconds']:.2f}", target["peak_growth_megabytes"]]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    failed = sum(target["failed"] for target in report["targets"].values())
    sums = [sum(f[key] for f in report["targets"].values()) for key in ("read", "refused")]
    lines.append(f"| all | {report['cases']:,} | {sums[0]:,} | {sums[1]:,} | {failed} | | |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Fuzz all readers; exit 1 if there was a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="other cases for another number")
    parser.add_argument("--out", type=Path, help="a .json file; a .md table is written beside it")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="saepd-fuzz-models-") as work:
        targets = reader_targets() + model_targets(Path(work))
        # A home and tokens that would be known again, were they ever told.
        os.environ |= {"HOME": f"/home/{_SECRET}", "HF_TOKEN": _SECRET, "WANDB_API_KEY": _SECRET}
        report = fuzz(targets, arguments.cases, arguments.seed, Guard())
        shutil.rmtree(work, ignore_errors=True)
        Path(work).mkdir()
    if arguments.out:
        write_json(arguments.out, report)
        write_atomically(arguments.out.with_suffix(".md"), table(report).encode())
    print(table(report))
    failures = {n: f["failures"] for n, f in report["targets"].items() if f["failures"]}
    for name, of_target in failures.items():
        for what, how in of_target.items():
            print(f"{name}: {what} ({how['times']} times)")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
