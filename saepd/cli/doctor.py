"""``saepd doctor``: what is there, and whether it fits together."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from saepd.cli.fields import argument
from saepd.cli.options import print_json, print_table, spinning
from saepd.common.errors import InputError

EXAMPLES = """\
  saepd doctor
  saepd doctor HuggingFaceTB/SmolLM2-360M
  saepd doctor --load --json
  saepd doctor --sae gemma-scope-2b-pt-res
  saepd doctor --sae gpt2-small-res-jb --sae-id blocks.8.hook_resid_pre"""

FIRST = ("model", "load", "sae", "sae_id", "json")


@dataclass(kw_only=True)
class Options:
    """How closely to look.

    Attributes:
        model: Hub id, folder or .gguf file of a model to prove: that hooks change nothing in it,
            and how its branches run.
        load: Also load the default model and every shipped SAE, and measure that they fit.
        sae: SAELens release, hub repository or folder of an SAE, to tell from its configuration
            alone whether it can steer, where, with which model, and what memory it takes.
        sae_id: Id of the SAE within a release.
        json: Print as JSON.
    """

    model: str | None = argument(None)
    load: bool = False
    sae: str | None = None
    sae_id: str | None = None
    json: bool = False


def run(options: Options) -> None:
    """Diagnose and print."""
    from saepd.cli.diagnosis import diagnose
    from saepd.cli.sae_diagnosis import diagnose_sae

    if options.sae_id is not None and options.sae is None:
        raise InputError("--sae-id is given without its release: name that with --sae")
    if options.sae is not None and (options.load or options.model is not None):
        raise InputError("--sae looks at the configuration of an SAE: drop --load and the model")
    with spinning("looking"):
        if options.sae is not None:
            checks = diagnose_sae(options.sae, options.sae_id)
        else:
            checks = diagnose(load=options.load, model=options.model)
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            "saepd doctor",
            ["", "check", "found", "advice"],
            [["ok" if c.ok else "!!", c.name, c.detail, c.advice] for c in checks],
            sentences=("check", "found", "advice"),
        )
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise InputError(f"not all is well: {', '.join(bad)}")
