"""How a sweep runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.common.tracking import TrackingMode

BackendName = Literal["local", "ray", "slurm"]
ClusterName = Literal["slurm", "local"]


@dataclass(frozen=True)
class RunConfig:
    """How a sweep runs; none of it changes a number.

    Attributes:
        backend: Where points run: local (in this process), ray, or slurm.
        workers: Number of workers of Ray or Slurm; if None, as many as the Ray cluster has room
            for, and one Slurm job.
        address: Address of a Ray cluster, or auto; one on this machine is started if None.
        cpus: CPU cores that each worker of Ray or Slurm is given; may be a fraction with Ray.
        gpus: GPUs that each worker of Ray or Slurm is given; may be a fraction with Ray.
        cluster: Where submitit starts the jobs of backend slurm: on a slurm cluster, or local, as
            processes of this machine.
        minutes: Longest time that a Slurm job may take, in minutes.
        partition: Slurm partition that jobs go to; the cluster's default if None.
        cache: Folder in which the results of stages are kept for later points; the folder stages
            beside the results if None.
        cache_gb: Size that the folder of stages may grow to, in units of 10^9 bytes.
        search_seed: Seed of the points that a random or bayes search draws.
        wandb: Whether each point is recorded as a run of W&B: off, offline or online.

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    backend: BackendName = "local"
    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    cluster: ClusterName = "slurm"
    minutes: int = 240
    partition: str | None = None
    cache: Path | None = None
    cache_gb: float = 10.0
    search_seed: int = 0
    wandb: TrackingMode = "off"

    def __post_init__(self) -> None:
        for name, kind in (
            ("backend", BackendName),
            ("cluster", ClusterName),
            ("wandb", TrackingMode),
        ):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise InputError(
                    f"{name} is {shortened(value)}: {nearest(str(value), get_args(kind))}"
                )
        if self.workers is not None:
            check_number("workers", self.workers, at_least=1, whole=True)
        check_number("cpus", self.cpus, above=0)
        check_number("gpus", self.gpus, at_least=0)
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if self.backend == "slurm" and not float(value).is_integer():
                raise InputError(f"{name} is {value}: Slurm gives whole ones, so ask for these")
        check_number("minutes", self.minutes, at_least=1, whole=True)
        check_number("cache_gb", self.cache_gb, above=0)
        check_number("search_seed", self.search_seed, at_least=0, whole=True)
