"""``saepd answer``: questions, every perspective's answer, and the merged one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.branches.writing.config import SamplingConfig
from saepd.cli.fields import argument
from saepd.cli.options import print_json, spinning
from saepd.cli.steering import SteeringOptions
from saepd.common.errors import InputError
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction
    from saepd.feedback.schema import Item
    from saepd.readout.option_scores import OptionScores

EXAMPLES = """\
  saepd fit --out steering
  saepd answer "Free buses?" --options Yes No Unsure --steering steering
  saepd answer "What should the city build next?" --steering steering
  saepd answer --items questions.jsonl --steering steering --json

A row of items: {"id": "q1", "prompt": "Free buses?", "options": ["Yes", "No"]}"""

FIRST = ("question", "options", "items", "steering", "strength", "operator", "json")


@dataclass(kw_only=True)
class Options:
    """What is asked.

    Attributes:
        question: The question itself, without its options.
        options: Options to choose from, two or more; none for an answer in free text.
        items: JSONL or CSV file of questions with their options, instead of a single one.
        answer_temperature: Temperature of the option distributions; 1 is the model's own, or the
            one that was fitted with the directions.
        json: Print the answers as JSON.
    """

    question: str | None = argument(None)
    options: list[str] = field(default_factory=list)
    items: Path | None = None
    answer_temperature: float = 1.0
    json: bool = False
    directions: SteeringOptions
    where: ModelConfig = field(default_factory=ModelConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run(options: Options) -> None:
    """Answer and print."""
    items = _items(options)
    if not options.answer_temperature > 0:
        raise InputError(f"the temperature is {options.answer_temperature}: it must be above 0")
    options.directions.check(options.merge)
    model, directions = options.directions.load(options.where)
    options = replace(options, readout=options.directions.readout(options.readout))
    if options.items is None and not items[0].options:
        from saepd.cli.generate import write
        from saepd.models.prompts import item_prompt

        prompt = item_prompt(model, items[0].prompt, (), options.readout)
        write(model, prompt, directions, options.merge, options.sampling, as_json=options.json)
        return
    answers = _answers(model, directions, items, options)
    if options.json:
        print_json(answers[0] if options.items is None else answers)
        return
    for answer in answers:
        _show(answer)


def _items(options: Options) -> Sequence[Item]:
    """The one question, or those of the file.

    Raises:
        InputError: neither or both were given, or what was given is no question.
    """
    from saepd.feedback.reading import load_items
    from saepd.feedback.schema import Item

    if options.items is not None:
        if options.question is not None or options.options:
            raise InputError("give one question or a file of them with --items, not both")
        return load_items(options.items).rows
    if options.question is None:
        raise InputError("no question: give one, or a file of them with --items")
    if len(options.options) == 1:
        raise InputError("one option is no choice: give two or more, or none for free text")
    return [Item(id="question", prompt=options.question, options=tuple(options.options))]


def _answers(
    model: TransformerBridge,
    directions: Sequence[Direction],
    items: Sequence[Item],
    options: Options,
) -> list[dict[str, Any]]:
    """Every item's answer, in order: distributions where there are options, text where not."""
    from saepd.branches.writing.generate import generate_batch
    from saepd.models.prompts import item_prompt
    from saepd.readout.options import read_options

    closed = [item for item in items if item.options]
    texts = [item_prompt(model, i.prompt, (), options.readout) for i in items if not i.options]
    with spinning(f"asking every branch {len(items)} question(s)"):
        scores = iter(read_options(model, closed, directions, options.readout) if closed else ())
        written = iter(
            generate_batch(model, texts, directions, options.merge, options.sampling)
            if texts
            else ()
        )
    answers = []
    for item in items:
        named = {} if options.items is None else {"id": item.id}
        if item.options:
            answer = _distributions(item, next(scores), directions, options)
        else:
            text = next(written)
            answer = {"question": item.prompt, "text": text.text, "ended_by": text.ended_by}
        answers.append(named | answer)
    return answers


def _distributions(
    item: Item, scores: OptionScores, directions: Sequence[Direction], options: Options
) -> dict[str, Any]:
    from saepd.merge.disagreement import branch_disagreement
    from saepd.merge.operators import merge_branches

    log_probs = scores.log_probs(options.answer_temperature)
    names = ["base", *(direction.perspective for direction in directions)]
    if scores.warning:
        print(f"warning: {scores.warning}", file=sys.stderr)
    return {
        "question": item.prompt,
        "options": list(item.options),
        "branches": {n: p.exp().tolist() for n, p in zip(names, log_probs, strict=True)},
        "mass": dict(zip(names, scores.mass.tolist(), strict=True)),
        "merged": merge_branches(log_probs, options.merge).exp().tolist(),
        "operator": options.merge.operator,
        "disagreement_nats": float(branch_disagreement(log_probs)),
    }


def _show(answer: dict[str, Any]) -> None:
    from saepd.cli.show import show_distributions

    if "text" in answer:
        print(f"{answer['question']}\n{answer['text']}")
        return
    rows = {**answer["branches"], f"merged ({answer['operator']})": answer["merged"]}
    show_distributions(answer["question"], answer["options"], rows)
    print(f"disagreement of the branches: {answer['disagreement_nats']:.4f} nats")
