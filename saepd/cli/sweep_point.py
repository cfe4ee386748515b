"""``saepd sweep point``: one point, with its parameters on the command line; what agents call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.cli.fields import argument
from saepd.cli.options import check_folder, print_json
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.common.tracking import TrackingMode

EXAMPLES = """\
  saepd sweep point --out out/layers block=15 k=8 coefficient=4

For W&B's agents, give the sweep file this command, make the sweep, and start
agents:

  command: [saepd, sweep, point, --out, out/layers, --wandb, online,
            "${args_no_hyphens}"]

  wandb sweep --project saepd sweep.yaml
  wandb agent ENTITY/saepd/SWEEP"""

FIRST = ("parameters", "out", "metric", "wandb")


@dataclass(kw_only=True)
class Options:
    """Which point.

    Attributes:
        parameters: Values as NAME=VALUE, for each parameter that is not at its default; values are
            YAML.
        out: Folder of the results, shared by all points.
        metric: Metric that the sweep is about; refused where the task does not define it.
        cache: Folder where stages are kept; ``stages`` in the folder of the results if not given.
        cache_gb: The most that the folder of stages may hold, in 10^9 bytes.
        wandb: Record the point as a W&B run: off, offline or online.
    """

    parameters: list[str] = argument(list)
    out: Path
    metric: str = "gain"
    cache: Path | None = None
    cache_gb: float = 10.0
    wandb: TrackingMode = "off"


def run(options: Options) -> None:
    """Run the point unless it is finished, and print its metrics."""
    from saepd.sweeps.config import RunConfig
    from saepd.sweeps.run import run_point

    check_folder(options.out)
    config = RunConfig(cache=options.cache, cache_gb=options.cache_gb, wandb=options.wandb)
    outcome = run_point(parse_values(options.parameters), options.out, config, options.metric)
    if outcome.failed:
        raise InputError(f"the point failed: {outcome.result['error']}")
    print_json(outcome.result["metrics"])


def parse_values(arguments: list[str]) -> dict[str, Any]:
    """NAME=VALUE as values of their YAML types.

    Raises:
        InputError: no name, no YAML, or a name that comes twice.
    """
    from saepd.sweeps.space.yaml_values import read_yaml

    values: dict[str, Any] = {}
    for word in arguments:
        name, equals, text = word.lstrip("-").partition("=")
        if not name or not equals:
            raise InputError(f"{shortened(word)} is no NAME=VALUE, as in block=15")
        if name in values:
            raise InputError(f"{name} is given twice: give it once")
        values[name] = read_yaml(text, name)
    return values
