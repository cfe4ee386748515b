"""What came out of every point, in a file that survives being killed at any moment.

The file is SQLite, through the standard library: a row is there after its transaction or it is not,
even if the process or the machine dies in between, several processes may write, and the database
itself refuses a second finished row of one point. (Optuna's journal would do for a search's own
history, and keeps it; but it knows trials, not results with intervals and tables, and a reader has
to replay it from the start.) Rows are only ever added.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.sweeps.results.outcome import PointOutcome, read_outcome, value_of_json

_SELECT = "SELECT id, key, status, parameters, result FROM results"
RESULTS_FILE = "results.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('finished', 'failed')),
    parameters TEXT NOT NULL,
    result TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_finished ON results (key) WHERE status = 'finished';
"""


class ResultStore:
    """The results in a sweep's folder.

    Args:
        folder: Folder of the sweep.
        create: Whether to make the file if it is not there.

    Raises:
        InputError: there is no such file, or it is no database of results.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.path = folder / RESULTS_FILE
        if not create and not self.path.is_file():
            raise InputError(f"{folder} holds no sweep: name the folder that was given as --out")
        with self._open() as connection:
            if create:
                connection.executescript(_SCHEMA)
            else:
                connection.execute("SELECT key FROM results LIMIT 1")

    def add(self, outcome: PointOutcome) -> bool:
        """Keep an outcome; returns whether it is new, which a finished point's second is not.

        Raises:
            InputError: the disk is full.
        """
        row = (
            outcome.key,
            outcome.status,
            json.dumps(outcome.parameters),
            json.dumps(outcome.result, allow_nan=False),
        )
        with self._open() as connection, connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO results (key, status, parameters, result) "
                "VALUES (?, ?, ?, ?)",
                row,
            )
            return done.rowcount == 1

    def finished(self) -> set[str]:
        """Keys of the points that need not run again."""
        with self._open() as connection:
            rows = connection.execute("SELECT key FROM results WHERE status = 'finished'")
            return {key for (key,) in rows}

    def outcomes(self) -> list[PointOutcome]:
        """The last of every point, in the order in which they were first tried.

        Raises:
            InputError: a row is not as this store writes it.
        """
        with self._open() as connection:
            rows = connection.execute(f"{_SELECT} ORDER BY id").fetchall()
        outcomes: dict[str, PointOutcome] = {}
        for outcome in map(self._outcome, rows):
            # A finished point stays finished, whatever failed beside it.
            if outcome.key not in outcomes or outcomes[outcome.key].failed:
                outcomes[outcome.key] = outcome
        return list(outcomes.values())

    def finished_outcome(self, key: str) -> PointOutcome | None:
        """The outcome of one point, if it is finished."""
        with self._open() as connection:
            row = connection.execute(
                f"{_SELECT} WHERE key = ? AND status = 'finished'", (key,)
            ).fetchone()
        return row and self._outcome(row)

    def _outcome(self, row: tuple[Any, ...]) -> PointOutcome:
        number, key, status, parameters, result = row
        source = f"{self.path}, row {number},"
        written = {
            "key": key,
            "status": status,
            "parameters": value_of_json(parameters, source),
            "result": value_of_json(result, source),
        }
        return read_outcome(written, source)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection:
                # A commit returns once the row is on the disk.
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise InputError(
                    f"no room left to write {self.path}: free some; what is finished is kept, and "
                    "the same command goes on from there"
                ) from error
            raise InputError(
                f"{self.path} cannot be used as a store of results: {error}"
            ) from error
