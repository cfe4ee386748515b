"""``saepd doctor``: what is there, and whether it fits together."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from saepd.cli.fields import argument
from saepd.cli.options import print_json, print_table, spinning

EXAMPLES = """\
  saepd doctor
  saepd doctor HuggingFaceTB/SmolLM2-360M
  saepd doctor --load --json"""

FIRST = ("model", "load", "json")


@dataclass(kw_only=True)
class Options:
    """How closely to look.

    Attributes:
        model: Hub id, folder or .gguf file of a model to prove: that hooks change nothing in it,
            and how its branches run.
        load: Also load the default model and every shipped SAE, and measure that they fit.
        json: Print as JSON.
    """

    model: str | None = argument(None)
    load: bool = False
    json: bool = False


def run(options: Options) -> None:
    """Diagnose and print."""
    from saepd.cli.diagnosis import diagnose
    from saepd.common.errors import InputError

    with spinning("looking"):
        checks = diagnose(load=options.load, model=options.model)
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            "saepd doctor",
            ["", "check", "found", "advice"],
            [["ok" if c.ok else "!!", c.name, c.detail, c.advice] for c in checks],
        )
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise InputError(f"not all is well: {', '.join(bad)}")
