"""A progress bar: in a terminal, and in a notebook, where one line is written over and over."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from saepd.common.html import Html, element, joined

# Seconds between two states that a notebook is sent: more are not seen, and fill its file.
_PAUSE = 0.2


@contextmanager
def progress_bar(what: str = "starting") -> Iterator[Callable[..., None]]:
    """A bar for whatever takes ``progress``, in a terminal and in a notebook alike.

    Give what it yields as ``progress``: it takes the step and the number of steps, and what is
    being done before them, where that is said.

    Args:
        what: What is being done until something else is said.
    """
    with (_in_notebook if _is_notebook() else _in_terminal)(what) as show:
        said = what

        def report(*told: Any) -> None:
            nonlocal said
            *description, step, steps = told
            said = description[0] if description else said
            show(said, step, steps)

        yield report


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs this; what has not imported IPython is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and shell.has_trait("kernel")


@contextmanager
def _in_terminal(what: str) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda said, step, steps: bar.update(
            task, description=said, completed=step, total=steps
        )


class BarLine:
    """What a notebook shows of a bar: HTML, or text where there is none.

    Args:
        what: What is being done.
        step: How much of it is done.
        steps: How much there is to do; None where nobody knows.
        seconds: How long it has taken.
    """

    def __init__(self, what: str, step: int, steps: int | None, seconds: float) -> None:
        self.what, self.step, self.steps, self.seconds = what, step, steps, seconds

    def __repr__(self) -> str:
        of = "" if self.steps is None else f" {self.step} of {self.steps},"
        return f"{self.what}:{of} {self.seconds:.0f} s"

    def _repr_html_(self) -> Html:
        size = {} if self.steps is None else {"value": self.step, "max": self.steps}
        return element("div", joined(element("progress", **size), " ", repr(self)))


@contextmanager
def _in_notebook(what: str) -> Iterator[Callable[[str, int, int], None]]:
    from IPython.display import display

    began = time.monotonic()
    handle: Any = display(BarLine(what, 0, None, 0.0), display_id=True)
    latest, shown_at = BarLine(what, 0, None, 0.0), began

    def show(said: str, step: int, steps: int) -> None:
        nonlocal latest, shown_at
        now = time.monotonic()
        latest = BarLine(said, step, steps, now - began)
        if now - shown_at >= _PAUSE:
            handle.update(latest)
            shown_at = now

    try:
        yield show
        latest.step = latest.steps or 0
    finally:
        latest.seconds = time.monotonic() - began
        handle.update(latest)
