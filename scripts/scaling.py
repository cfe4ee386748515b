"""Measure how time and memory grow with rows, items, perspectives, latents, branches and points.

Each step is run at one, ten and a hundred times its usual size. A step that grows in proportion
takes ten times as long at ten times the size; one that grows with the square, a hundred times.
Commands run on a tiny random model, so that what is seen is how they grow, and not how large a
model is.

    OMP_NUM_THREADS=1 python scripts/scaling.py --out artifacts/results/scaling.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests")]

from scaling_steps import with_model, without_model  # noqa: E402
from scaling_steps.step import Step, measured  # noqa: E402

from saepd.common.files import write_atomically, write_json  # noqa: E402

FACTORS = (1, 10, 100)
STEPS: dict[str, Step] = {**without_model.STEPS, **with_model.STEPS}


def table(steps: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    heads = ["step", "size", *(f"{n} times: s, MB" for n in FACTORS), "last tenfold takes"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    for name, one in steps.items():
        cells = [
            f"{s:.3f}, {mb:.1f}" for s, mb in zip(one["seconds"], one["megabytes"], strict=True)
        ]
        cells += [""] * (len(FACTORS) - len(cells))
        ratio = one["seconds"][-1] / max(one["seconds"][-2], 1e-9)
        size = f"{one['base']} {one['unit']}"
        lines.append(f"| {name} | {size} | " + " | ".join(cells) + f" | {ratio:.0f} times |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a .json file; a .md table is written beside it")
    parser.add_argument("--only", default="", help="steps whose names hold this")
    arguments = parser.parse_args()
    steps: dict[str, Any] = {}
    for name, step in STEPS.items():
        if arguments.only not in name:
            continue
        pairs = [measured(step, step.base * factor) for factor in step.factors]
        seconds, megabytes = ([round(p[k], 4) for p in pairs] for k in (0, 1))
        steps[name] = {
            "unit": step.unit,
            "base": step.base,
            "seconds": seconds,
            "megabytes": megabytes,
        }
        print(f"{name}: {seconds} s, {megabytes} MB", file=sys.stderr)
    if arguments.out:
        write_json(arguments.out, {"factors": FACTORS, "steps": steps})
        write_atomically(arguments.out.with_suffix(".md"), table(steps).encode())
    print(table(steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
