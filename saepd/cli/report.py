"""``saepd report``: one page that tells what a folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saepd.cli.fields import argument
from saepd.cli.options import check_file

EXAMPLES = """\
  saepd report out/goqa
  saepd report steering --out steering.html
  saepd report out/layers --metric js_distance

Contexts of a fit's latents are in its report where they stand beside it:

  saepd features --feedback mine.jsonl --out steering/features.json"""

FIRST = ("folder", "out", "metric")


@dataclass(kw_only=True)
class Options:
    """What is reported.

    Attributes:
        folder: Folder that saepd fit, evaluate, sweep or triage was given as --out.
        out: File of the page; report.html in the folder if not given.
        metric: Metric that the points of a sweep are compared by.
    """

    folder: Path = argument()
    out: Path | None = None
    metric: str = "gain"


def run(options: Options) -> None:
    """Write the page and say where it is."""
    from saepd.pages.report import write_report

    check_file(options.out)
    path = write_report(options.folder, options.out, options.metric)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, opens in any browser")
