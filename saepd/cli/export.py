"""``saepd export``: directions of a folder in another tool's format."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.fields import argument, names_given
from saepd.cli.options import check_folder, print_json, print_table
from saepd.cli.steering import SteeringOptions
from saepd.common.checks import check_choice
from saepd.common.errors import InputError
from saepd.interchange.config import HUB, WRITTEN
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.interchange.exporting import Written

EXAMPLES = f"""\
  saepd export steering --to llama.cpp --allow-loss --out vectors
  saepd export steering --to neuronpedia --out pages
  saepd export steering --to easysteer --strength 0.5 --out specs
  saepd export steering --to hub --out for-the-hub

The formats:

{chr(10).join(f"  {name:<17} {what}" for name, what in WRITTEN.items())}"""

FIRST = ("folder", "to", "out", "allow_loss", "strength", "json")


@dataclass(kw_only=True)
class Options:
    """What is written for which tool.

    Attributes:
        folder: Folder of directions, as saepd fit writes it, or hf://USER/NAME on the hub; it
            names its model and its SAE.
        to: Format of the files that are written; the formats are listed below.
        out: Folder that gets the files, and export.json, which tells how they came about.
        allow_loss: Write what the format can hold, where it cannot hold all of the directions.
        strength: Number that the coefficient of every direction is multiplied by.
        json: Print what was written as JSON.
    """

    folder: Path = argument()
    to: str
    out: Path
    allow_loss: bool = False
    strength: float = 1.0
    json: bool = False
    where: ModelConfig = field(default_factory=ModelConfig)
    given: Set[str] = names_given()


def run(options: Options) -> None:
    """Write the files and say what is in them, and what is not."""
    check_choice("format", options.to, WRITTEN)
    check_folder(options.out)
    if options.to == HUB:
        _for_the_hub(options)
        return
    steering = SteeringOptions(options.folder, options.strength, options.given)
    model, directions = steering.load(options.where)
    from saepd.interchange.exporting import export_directions

    written = export_directions(
        model, directions, options.to, options.out, allow_loss=options.allow_loss
    )
    if options.json:
        print_json([one.to_dict() | {"use": one.use} for one in written])
        return
    _show(options.to, written)


def _for_the_hub(options: Options) -> None:
    """Nothing is computed, so neither the model nor the SAE is loaded."""
    from saepd.interchange.hub_folder import write_hub_folder

    if options.strength != 1:
        raise InputError("--to hub copies directions as they are: drop --strength")
    left_out = write_hub_folder(options.folder, options.out)
    if options.json:
        print_json({"left_out": left_out})
        return
    for sentence in left_out:
        print(f"left out: {sentence}")
    print(f"use: hf upload USER/NAME {options.out}")


def _show(to: str, written: list[Written]) -> None:
    rows = [
        [one.perspective, f"{one.norm:.3g}", ", ".join(path.name for path in one.files)]
        for one in written
    ]
    print_table(f"written for {to}", ["perspective", "norm", "files"], rows, {"files"})
    for one in written:
        if one.norm == 0:
            # Of an edit that depends on the text there is no vector, as the losses say.
            if not any(loss.what == "mode" for loss in one.losses):
                print(f"{one.perspective}: its direction writes nothing, so its vector is zero")
            continue
        if one.refit is None:
            continue
        refit = asdict(one.refit)
        print(
            "{name}: strength times {factor:.3g}, so that writing at every token moves the next "
            "token after neutral text by {kl_after:.3g} nats, as the direction does "
            "({kl_before:.3g}); unchanged it would be {kl_unchanged:.3g}".format(
                name=one.perspective, **refit
            )
        )
    for sentence in dict.fromkeys(loss.sentence for one in written for loss in one.losses):
        print(f"lost: {sentence}")
    print(f"use: {written[0].use}")
