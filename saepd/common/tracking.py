"""Follow a run in Weights & Biases: off unless asked for, and never the reason a run fails."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE

TrackingMode = Literal["off", "offline", "online"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingConfig:
    """Whether and where a run is recorded.

    Attributes:
        mode: ``off``, ``online``, or ``offline`` for a later ``wandb sync`` from this machine.
        project: The W&B project.
        name: The run's name; None lets W&B invent one.
        group: What the run belongs to, such as one sweep.
        id: The run's id; None lets W&B invent one. A run that is recorded again under its id takes
            the place of the first.
        dir: Runs go to ``wandb/`` in here; None is ``$WANDB_DIR`` or the working directory.
    """

    mode: TrackingMode = "off"
    project: str = "saepd"
    name: str | None = None
    group: str | None = None
    id: str | None = None
    dir: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(TrackingMode):
            raise InputError(f"unknown tracking mode {self.mode!r}: use off, offline or online")


class Tracker:
    """One run's record; made by `track`. Without a W&B run behind it, every method is silent."""

    def __init__(self, run: Any = None) -> None:
        self._run, self._warned = run, False

    @property
    def location(self) -> str | None:
        """The run's page, its folder if it is offline, or None if it is not tracked."""
        run = self._run
        return run and (str(Path(run.dir).parent) if run.offline else run.url)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record one step of metrics."""
        self._try(lambda run: run.log(dict(metrics)))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record rows as a table; a row may lack columns that others have."""
        self._try(lambda run: run.log({name: _table(rows)}))

    def log_steering(self, folder: str | Path) -> None:
        """Record a folder that `save_to_disk` wrote, lineage included, as an artefact."""
        self._try(lambda run: run.log_artifact(_artifact(Path(folder).resolve())))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set results that stand for the whole run."""
        self._try(lambda run: run.summary.update(dict(values)))

    def _finish(self, error: BaseException | None = None) -> None:
        if error is not None:
            self.summary({"error": f"{type(error).__name__}: {error}"})
        self._try(lambda run: run.finish(exit_code=0 if error is None else 1))

    def _try(self, action: Callable[[Any], Any]) -> None:
        try:
            if self._run is not None:
                action(self._run)
        except Exception as error:
            # One value that W&B refuses must neither end the work nor lose the rest of the record.
            if not self._warned:
                _log.warning("W&B misses part of this run: %s: %s", type(error).__name__, error)
            self._warned = True


@contextmanager
def track(
    config: TrackingConfig, run_config: Mapping[str, Any], *, job_type: str | None = None
) -> Iterator[Tracker]:
    """Track the body of a ``with`` as one run; a body that raises marks the run as failed.

    Args:
        config: Whether and where to record.
        run_config: The run's settings, as JSON values.
        job_type: What kind of run it is, such as ``demo``.
    """
    tracker = Tracker(None if config.mode == "off" else _start(config, dict(run_config), job_type))
    try:
        yield tracker
    except BaseException as error:
        tracker._finish(error)
        raise
    tracker._finish()


def _start(config: TrackingConfig, run_config: dict[str, Any], job_type: str | None) -> Any:
    try:
        if config.mode == "offline":
            # Even then W&B looks up its telemetry host, unless told not to.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if config.dir is not None:
            # W&B goes to the temporary folder, without a word, if this one does not exist.
            Path(config.dir).mkdir(parents=True, exist_ok=True)
        import wandb

        # Without reinit, a run that the caller has open would be written into and then ended;
        # a captured console breaks progress bars.
        settings = wandb.Settings(console="off", silent=True, reinit="create_new")
        return wandb.init(**asdict(config), config=run_config, job_type=job_type, settings=settings)
    except Exception as error:
        # An import fails in whatever W&B depends on, and init raises a family of classes.
        _log.warning("no W&B, run not tracked: %s: %s", type(error).__name__, error)
        return None


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    columns: Any = list(dict.fromkeys(column for row in rows for column in row))
    data: Any = [[row.get(column) for column in columns] for row in rows]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _artifact(folder: Path) -> Any:
    """The files of a steering folder; lineage that all its directions share is told once."""
    import wandb

    story = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    told = [direction.pop("lineage") for direction in story["directions"]]
    story["lineages"] = [x for i, x in enumerate(told) if x not in told[:i]]
    name = "steering-" + re.sub(r"[^A-Za-z0-9_.-]", "-", folder.name)
    artifact = wandb.Artifact(name, type="steering", metadata=story)
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        artifact.add_file(str(folder / file))
    return artifact
