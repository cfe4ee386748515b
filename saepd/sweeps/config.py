"""How a sweep runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saepd.common.errors import InputError
from saepd.common.tracking import Mode

BackendName = Literal["local", "ray", "slurm"]


@dataclass(frozen=True)
class RunConfig:
    """How a sweep runs; none of it changes a number.

    Attributes:
        backend: ``local`` (this process), ``ray``, or ``slurm``.
        workers: Of Ray or Slurm; as many as the Ray cluster has room for if None, and 1 of Slurm.
        address: Of a Ray cluster, or ``auto``; one on this machine is started if None.
        cpus: Per worker.
        gpus: Per worker; may be a fraction with Ray.
        cluster: submitit's: ``slurm``, or ``local`` for processes of this machine.
        minutes: Of a Slurm job, at most.
        partition: Of Slurm; its default if None.
        cache: Folder of stages; ``stages`` in the sweep's folder if None.
        cache_gb: Its size cap, 10^9 bytes.
        search_seed: Of a random or bayes search.
        wandb: Each point as a run of one group: off, offline or online.
    """

    backend: BackendName = "local"
    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    cluster: str = "slurm"
    minutes: int = 240
    partition: str | None = None
    cache: Path | None = None
    cache_gb: float = 10.0
    search_seed: int = 0
    wandb: Mode = "off"

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}: it must be at least 1")
        if not self.cache_gb > 0:
            raise InputError(f"cache_gb is {self.cache_gb}: it must be above 0")
