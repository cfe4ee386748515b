"""``saepd answer``: one question, every perspective's answer, and the merged one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.branches.writing.config import SamplingConfig
from saepd.cli.fields import argument
from saepd.cli.options import load_model_and_sae, print_json, spinning
from saepd.common.errors import InputError
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from saepd.directions.direction import Direction

EXAMPLES = """\
  saepd fit --out steering
  saepd answer "Free buses?" --options Yes No Unsure --steering steering
  saepd answer "What should the city build next?" --steering steering"""

FIRST = ("question", "options", "steering", "operator", "json")


@dataclass(kw_only=True)
class Options:
    """What is asked.

    Attributes:
        question: The question itself, without its options.
        steering: Folder of directions, as `saepd fit` writes it.
        options: Options to choose from, two or more; none for an answer in free text.
        answer_temperature: Temperature of the option distributions; 1 is the model's own, or with
            directions of `saepd fit --learn` the one that was learned with them.
        json: Print the answer as JSON.
    """

    steering: Path
    question: str = argument()
    options: list[str] = field(default_factory=list)
    answer_temperature: float = 1.0
    json: bool = False
    where: ModelConfig = field(default_factory=ModelConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run(options: Options) -> None:
    """Answer and print."""
    from saepd.directions.saving import load_from_disk
    from saepd.models.prompts import item_prompt

    if len(options.options) == 1:
        raise InputError("one option is no choice: give two or more, or none for free text")
    model, sae = load_model_and_sae(options.where)
    directions = load_from_disk(options.steering, model, sae)
    if options.options:
        _choose(options, model, directions)
        return
    from saepd.cli.generate import write

    prompt = item_prompt(model, options.question, (), options.readout)
    write(model, prompt, directions, options.merge, options.sampling, as_json=options.json)


def _choose(options: Options, model, directions: Sequence[Direction]) -> None:  # noqa: ANN001
    import sys

    from saepd.cli.show import show_distributions
    from saepd.feedback.schema import Item
    from saepd.fit.learned import is_learned, read_learned
    from saepd.merge.disagreement import branch_disagreement
    from saepd.merge.operators import merge_branches
    from saepd.readout.options import read_options

    item = Item(id="question", prompt=options.question, options=tuple(options.options))
    read = read_learned if is_learned(directions) else read_options
    with spinning("asking every branch"):
        [scores] = read(model, [item], directions, options.readout)
    log_probs = scores.log_probs(options.answer_temperature)
    merged = merge_branches(log_probs, options.merge)
    disagreement = float(branch_disagreement(log_probs))
    names = ["base", *(d.perspective for d in directions)]
    found = {
        "question": options.question,
        "options": options.options,
        "branches": {n: p.exp().tolist() for n, p in zip(names, log_probs, strict=True)},
        "mass": dict(zip(names, scores.mass.tolist(), strict=True)),
        "merged": merged.exp().tolist(),
        "operator": options.merge.operator,
        "disagreement_nats": disagreement,
    }
    if scores.warning:
        print(f"warning: {scores.warning}", file=sys.stderr)
    if options.json:
        print_json(found)
        return
    rows = {**found["branches"], f"merged ({options.merge.operator})": found["merged"]}
    show_distributions(options.question, options.options, rows)
    print(f"disagreement of the branches: {disagreement:.4f} nats")
