"""What an evaluation found, as it shows itself in a notebook and is read again from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.frames import as_frame
from saepd.common.html import card, note, table
from saepd.evaluation.results.table import finding, table_cells

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_FILE = "summary.json"
PREDICTIONS_FILE = "predictions.parquet"
# The questions that were predicted: id, prompt, options.
ITEMS_FILE = "items.json"


class EvaluationResult(dict[str, Any]):
    """What ``summary.json`` of an evaluation holds: rows, methods, settings and counts.

    ``rows`` compare with each group's answers. ``population`` is empty or compares with those of
    the whole population; see `saepd.evaluation.results.population`.
    """

    def __repr__(self) -> str:
        return f"EvaluationResult({self['config']['task']!r}: {self.finding()})"

    def frame(self) -> pd.DataFrame:
        """One row for each method and perspective, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(self["rows"])

    def finding(self) -> str:
        """Which null is best, and whether the best of the other methods is better."""
        return finding(self["rows"])

    @property
    def population(self) -> list[dict[str, Any]]:
        """Rows against the population's answers; none where no method answers for all of it."""
        # Which evaluations before did not have.
        return self.get("population", [])

    def _repr_html_(self) -> str:
        parts: list[object] = [
            table(*table_cells(self["rows"], short=True)),
            note(self.finding()),
        ]
        if self.population:
            parts += [
                note("One answer for the whole population:"),
                table(*table_cells(self.population, short=True)),
                note(finding(self.population)),
            ]
        return card(f"{self['config']['task']}, questions held out", *parts)


def read_evaluation(folder: str | Path) -> EvaluationResult:
    """What an evaluation left in its folder.

    Raises:
        InputError: the folder holds no summary that an evaluation wrote.
    """
    path = Path(folder) / SUMMARY_FILE
    try:
        result = EvaluationResult(json.loads(read_text(path)))
        # Whatever it lacks for showing itself is missing now.
        result._repr_html_()
    except InputError:
        raise
    # What a file of another kind lacks, or holds of another type, depends on the file.
    except Exception as error:
        raise InputError(f"{path} is not what an evaluation wrote: name its folder") from error
    return result
