"""The report of a folder: what a fit, an evaluation, a sweep or a triage left, as one page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, write_atomically
from saepd.evaluation.results.result import SUMMARY_FILE
from saepd.pages.of_evaluation import evaluation_sections
from saepd.pages.of_fit import fit_sections
from saepd.pages.of_sweep import sweep_sections
from saepd.pages.of_triage import TRIAGE_FILE, triage_sections
from saepd.pages.page import Section, page
from saepd.sweeps.results.store import RESULTS_FILE

REPORT_FILE = "report.html"
_MOST_BYTES = 5 * 10**6

_Parts: TypeAlias = tuple[str, str, list[Section]]


def report(folder: str | Path, metric: str = "gain") -> bytes:
    """The page that tells what is in a folder: it loads nothing, runs nothing, and is below 5 MB.

    Args:
        folder: What ``saepd fit``, ``evaluate``, ``sweep`` or ``triage`` was given as ``--out``.
        metric: What the points of a sweep are compared by.

    Raises:
        InputError: a folder that holds none of these or several of them, damaged files, or a page
            of more than 5 MB.
    """
    folder = Path(folder)
    kinds: dict[str, Callable[[], _Parts]] = {
        CONFIG_FILE: lambda: fit_sections(folder),
        SUMMARY_FILE: lambda: evaluation_sections(folder),
        RESULTS_FILE: lambda: sweep_sections(folder, metric),
        TRIAGE_FILE: lambda: triage_sections(folder),
    }
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: name one that saepd wrote")
    files = [name for name in kinds if (folder / name).is_file()]
    if not files:
        raise InputError(
            f"{folder} holds none of {', '.join(kinds)}: name the folder that fit, evaluate, sweep "
            "or triage was given as --out"
        )
    if len(files) > 1:
        raise InputError(
            f"{folder} holds both {' and '.join(files)}: give each a folder of its own"
        )
    try:
        title, lead, sections = kinds[files[0]]()
        html = page(title, lead, sections)
    except InputError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # What a damaged file leads to depends on the field that is missing, or of another type.
        raise InputError(
            f"{folder / files[0]} is not what saepd wrote, or a file beside it is not: run what "
            "made the folder again"
        ) from error
    if len(html) > _MOST_BYTES:
        raise InputError(
            f"the report of {folder} would be {len(html) / 1e6:.1f} MB, beyond what a page "
            "should be: its texts are too long"
        )
    return html


def write_report(folder: str | Path, out: str | Path | None = None, metric: str = "gain") -> Path:
    """Write the page that tells what is in a folder of results.

    Args:
        folder: What ``saepd fit``, ``evaluate``, ``sweep`` or ``triage`` was given as ``--out``.
        out: HTML file that is written; ``report.html`` in the folder if None.
        metric: What the points of a sweep are compared by.

    Returns:
        Path of the file.

    Raises:
        InputError: a folder that holds no results or several kinds of them, damaged files, or a
            page of more than 5 MB.
    """
    path = Path(folder) / REPORT_FILE if out is None else Path(out)
    write_atomically(path, report(folder, metric))
    return path
