"""``saepd import``: another tool's vectors as a folder of directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.fields import argument
from saepd.cli.options import (
    check_folder,
    check_replaces_no_fit,
    load_only_model,
    print_table,
)
from saepd.common.checks import check_choice
from saepd.interchange.config import READ
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction

EXAMPLES = f"""\
  saepd import happy.gguf --from llama.cpp --out happy
  saepd import probe.safetensors --from tensors --out probe \\
      --hook-name blocks.15.hook_resid_post --positions answer --coefficient 4

The formats:

{chr(10).join(f"  {name:<17} {what}" for name, what in READ.items())}"""

FIRST = ("file", "from_", "out", "perspective", "positions", "coefficient", "model")


@dataclass(kw_only=True)
class Options:
    """What is read from where.

    Attributes:
        file: File of vectors.
        from_: Format of the file; the formats are listed below.
        out: Folder that gets the directions.
        perspective: Name of the perspective that the vectors are of; the file's name if not given.
        hook_name: Site of a vector whose file names none, such as blocks.15.hook_resid_post; of
            several vectors, the one that is read.
        positions: Where the vectors are added: every, all, prompt, generated, answer, last(n) or
            after("text").
        coefficient: Number that the vectors are multiplied by.
    """

    file: Path = argument()
    from_: str
    out: Path
    perspective: str | None = None
    hook_name: str | None = None
    positions: str = "every"
    coefficient: float = 1.0
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Read, check against the model, and save."""
    check_choice("format", options.from_, READ)
    check_folder(options.out)
    check_replaces_no_fit(options.out)
    from saepd.directions.saving import save_to_disk
    from saepd.interchange.importing import import_direction

    def read(model: TransformerBridge | None = None) -> Direction:
        return import_direction(
            options.file,
            options.from_,
            model,
            perspective=options.perspective,
            hook_name=options.hook_name,
            positions=options.positions,
            coefficient=options.coefficient,
        )

    # What is wrong with the file is told before a model is loaded.
    read()
    model = load_only_model(options.where)
    direction = read(model)
    save_to_disk(direction, options.out, model)
    constants = [(part.hook_name, part.constant) for part in direction.parts]
    rows = [
        [direction.perspective, site, f"{float(constant.norm()):.3g}"]
        for site, constant in constants
        if constant is not None
    ]
    print_table(f"saved in {options.out}", ["perspective", "site", "norm"], rows, {"site"})
