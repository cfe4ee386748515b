"""Search where results led before, through Optuna; its journal file keeps the history."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError, first_line
from saepd.sweeps.point.content import content_of
from saepd.sweeps.point.identity import FILE_PARAMETERS, code_version
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.space.parameters import point_config
from saepd.sweeps.space.points import SweepPoint
from saepd.sweeps.space.space import Choice, Space
from saepd.sweeps.space.sweep_file import Sweep

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.log"


def search(
    sweep: Sweep,
    out: Path,
    seed: int,
    finished: Mapping[str, PointOutcome],
    n_parallel: int,
    run: Callable[[Sequence[SweepPoint]], None],
) -> None:
    """Ask Optuna for points, run them, tell it what came out, until the run cap is reached.

    A trial that was asked for and not told of when the process died is run first; a point whose
    result is in the store is told without running. The sampler (TPE) is seeded anew for each trial
    by how many there were before, so that a search that was interrupted asks for the same points.

    Args:
        sweep: With method bayes.
        out: Folder of the sweep.
        seed: Seed of what the search draws.
        finished: Key of a point -> its outcome; grows while points run.
        n_parallel: Points asked for at a time.
        run: Runs points and adds what comes out to ``finished``.

    Raises:
        InputError: Optuna is not installed, or the history in the folder is damaged.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage
    except ImportError as error:
        raise InputError("Optuna is not installed: pip install 'saepd[sweeps]'") from error
    assert sweep.run_cap is not None
    logging.getLogger("optuna").setLevel(logging.ERROR)
    try:
        study = optuna.create_study(
            study_name=study_name(sweep),
            storage=JournalStorage(JournalFileBackend(str(out / JOURNAL))),
            direction=sweep.goal,
            load_if_exists=True,
        )
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # What its reader stumbles over in lines that are not its own.
        raise InputError(
            f"{out / JOURNAL} cannot be read as a search's history: {first_line(error)}; take it "
            "away: finished points are kept elsewhere and do not run again"
        ) from error
    pending: list[tuple[int, dict[str, Any]]] = []
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        if _is_whole(trial, sweep):
            values = {n: _meant(s, trial.params[n]) for n, s in sweep.parameters.items()}
            pending.append((trial.number, values))
        else:
            # The process died while asking.
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    while True:
        n_asked = sum(_is_whole(trial, sweep) for trial in study.trials)
        wanted = min(n_parallel, sweep.run_cap - n_asked + len(pending))
        if wanted <= 0:
            return
        while len(pending) < wanted:
            n_asked = sum(_is_whole(trial, sweep) for trial in study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed + n_asked)
            trial = study.ask()
            suggested = {name: _suggest(trial, name, s) for name, s in sweep.parameters.items()}
            pending.append((trial.number, suggested))
        now, pending = pending[:wanted], pending[wanted:]
        points = {number: SweepPoint(number, point_config(values)) for number, values in now}
        run(list({point.key: point for point in points.values()}.values()))
        for number, point in points.items():
            outcome = finished.get(point.key)
            value = outcome and outcome.result["metrics"].get(sweep.metric)
            if value is None or not math.isfinite(value):
                study.tell(number, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(number, value)


def study_name(sweep: Sweep) -> str:
    """What a search's history is kept under: another one for other values or other files."""
    files = {
        name: [content_of(value) for value in space.values]
        for name, space in sweep.parameters.items()
        if name in FILE_PARAMETERS and isinstance(space, Choice)
    }
    spaces = {name: repr(space) for name, space in sweep.parameters.items()}
    text = json.dumps([spaces, files, code_version()], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{sweep.name}: {sweep.metric}, {digest}"


def _is_whole(trial: Any, sweep: Sweep) -> bool:
    """Whether a trial has every parameter, which one that was cut off while being asked has not."""
    return set(sweep.parameters) <= set(trial.params)


def _suggest(trial: optuna.Trial, name: str, space: Space) -> Any:
    if isinstance(space, Choice):
        # Optuna's categories are plain values; the place of a value in its list stands for it.
        return _meant(space, trial.suggest_categorical(name, range(len(space.values))))
    if space.integer and not space.step:
        return trial.suggest_int(name, round(space.low), round(space.high), log=space.log)
    return _meant(space, trial.suggest_float(name, space.low, space.high, log=space.log))


def _meant(space: Space, value: Any) -> Any:
    """The value that a trial's number stands for."""
    return space.values[value] if isinstance(space, Choice) else space.rounded(value)
