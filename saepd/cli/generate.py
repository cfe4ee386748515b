"""``saepd generate``: text from the merged perspectives, from each, or their distinct answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.branches.writing.config import DRAWN_AT, OvertonConfig, SamplingConfig
from saepd.cli.fields import argument
from saepd.cli.options import as_asked, check_file, print_json
from saepd.cli.steering import SteeringOptions
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import Style

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction

EXAMPLES = """\
  saepd generate "What should the government pay for?" --steering steering
  saepd generate "My town is" --style plain --steering steering
  saepd generate "Taxes?" --steering steering --temperature 0.8 --seed 3
  saepd generate "Taxes?" --steering steering --per-perspective
  saepd generate "Taxes?" --steering steering --overton --shares 0.3 0.4 0.3
  saepd generate --prompts prompts.txt --steering steering --trace trace.jsonl"""

FIRST = ("prompt", "steering", "strength", "max_new_tokens", "temperature", "operator", "overton")


@dataclass(kw_only=True)
class Options:
    """What is written.

    Attributes:
        prompt: Text that is continued, or the user's turn that is answered.
        prompts: File of several prompts, one a line.
        per_perspective: Write one text as the base model and one as each perspective, unmerged.
        overton: Lay out the distinct answers instead of merging them: the base model and each
            perspective write several texts (at temperature 0.9 if none is given), and each answer
            is told with its share and with who gives it.
        trace: JSONL file that will say of every token how it came about.
        style: How a prompt is put to the model: as a user's turn in its chat template, or as
            plain text; if not given, in the template if the model has one.
        json: Print as JSON when done instead of token by token.
    """

    prompt: str | None = argument(None)
    prompts: Path | None = None
    per_perspective: bool = False
    overton: bool = False
    trace: Path | None = None
    style: Style | None = None
    json: bool = False
    directions: SteeringOptions
    where: ModelConfig = field(default_factory=ModelConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    distinct: OvertonConfig = field(default_factory=OvertonConfig)


def run(options: Options) -> None:
    """Generate and print, a single merged text as it comes."""
    if options.per_perspective and options.overton:
        raise InputError("--per-perspective writes one text each, --overton several: drop one")
    unmerged = "--per-perspective" if options.per_perspective else "--overton"
    if options.per_perspective or options.overton:
        if options.trace is not None:
            raise InputError(f"--trace says how the merged text came about: drop {unmerged}")
        if options.merge != MergeConfig():
            raise InputError(f"{unmerged} merges nothing: drop the options of the merge")
    if not options.overton and options.distinct != OvertonConfig():
        raise InputError(
            "--n-samples, --similarity and --shares are for distinct answers: add --overton"
        )
    check_file(options.trace, flag="--trace")
    prompts = _prompts(options)
    options.directions.check(options.merge)
    model, directions = options.directions.load(options.where)
    prompts = as_asked(model, prompts, options.style)
    if options.overton:
        _lay_out(model, prompts, directions, options)
    elif options.per_perspective:
        _write_apart(model, prompts, directions, options)
    elif options.prompts is None and options.trace is None:
        write(model, prompts[0], directions, options.merge, options.sampling, as_json=options.json)
    else:
        _write_batch(model, prompts, directions, options)


def write(
    model: TransformerBridge,
    prompt: str,
    directions: Sequence[Direction],
    merge: MergeConfig,
    sampling: SamplingConfig,
    *,
    as_json: bool,
) -> None:
    """Print merged text token by token, or all at once as JSON."""
    from saepd.branches.writing.generate import generate, generate_batch

    if as_json:
        [text] = generate_batch(model, [prompt], directions, merge, sampling)
        print_json({"prompt": prompt, "text": text.text, "ended_by": text.ended_by})
        return
    for piece in generate(model, prompt, directions, merge, sampling):
        print(piece, end="", flush=True)
    print()


def _write_batch(
    model: TransformerBridge,
    prompts: list[str],
    directions: Sequence[Direction],
    options: Options,
) -> None:
    from saepd.branches.writing.generate import generate_batch
    from saepd.common.files import write_atomically

    with progress_bar("writing") as report:
        texts = generate_batch(
            model,
            prompts,
            directions,
            options.merge,
            options.sampling,
            trace=options.trace is not None,
            progress=report,
        )
    if options.trace is not None:
        branches = _names(directions)
        traces = [
            {"prompt": prompt, "branches": branches, **asdict(text)}
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        lines = "".join(json.dumps(trace, ensure_ascii=False) + "\n" for trace in traces)
        write_atomically(options.trace, lines.encode())
    results = [
        {"prompt": prompt, "text": text.text, "ended_by": text.ended_by}
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    if options.json:
        _print_results(results, options)
        return
    for one in results:
        if options.prompts is not None:
            print(f"> {one['prompt']}")
        print(one["text"])


def _write_apart(
    model: TransformerBridge,
    prompts: list[str],
    directions: Sequence[Direction],
    options: Options,
) -> None:
    from saepd.branches.writing.generate import generate_branches

    with progress_bar("writing") as report:
        texts_by_prompt = generate_branches(
            model, prompts, directions, options.sampling, progress=report
        )
    names = _names(directions)
    results = [
        {
            "prompt": prompt,
            "texts": {name: text.text for name, text in zip(names, texts, strict=True)},
        }
        for prompt, texts in zip(prompts, texts_by_prompt, strict=True)
    ]
    if options.json:
        _print_results(results, options)
        return
    for one in results:
        if options.prompts is not None:
            print(f"> {one['prompt']}")
        for name, text in one["texts"].items():
            print(f"[{name}] {text}")


def _lay_out(
    model: TransformerBridge,
    prompts: list[str],
    directions: Sequence[Direction],
    options: Options,
) -> None:
    from saepd.branches.writing.overton import distinct_answers

    sampling = options.sampling
    if "temperature" not in options.directions.given:
        sampling = replace(sampling, temperature=DRAWN_AT)
    with progress_bar("writing") as report:
        results = distinct_answers(
            model, prompts, directions, sampling, options.distinct, progress=report
        )
    if options.json:
        _print_results([one.as_json() for one in results], options)
        return
    for one in results:
        if options.prompts is not None:
            print(f"> {one.prompt}")
        for answer in one.answers:
            holders = ", ".join(
                f"{name} {part:.0%}" for name, part in answer.held_by.items() if part
            )
            print(f"[{answer.share:.0%}] {answer.text}\n      {holders}")
        if one.n_empty:
            print(f"{one.n_empty} texts said nothing")


def _print_results(results: list[dict[str, Any]], options: Options) -> None:
    """A list where prompts came in a file, however many they were."""
    print_json(results[0] if options.prompts is None else results)


def _names(directions: Sequence[Direction]) -> list[str]:
    return ["base", *(direction.perspective for direction in directions)]


def _prompts(options: Options) -> list[str]:
    """The one prompt, or those of the file.

    Raises:
        InputError: neither or both were given, or the file cannot be read or holds none.
    """
    if options.prompts is None:
        if options.prompt is None:
            raise InputError("no prompt: give one, or a file of them with --prompts")
        return [options.prompt]
    if options.prompt is not None:
        raise InputError("give one prompt or a file of them with --prompts, not both")
    try:
        text = options.prompts.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"cannot read {options.prompts}: {error.strerror}: name a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{options.prompts} is not UTF-8: save it in that encoding") from error
    # Only at line feeds: a prompt may hold other separators.
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise InputError(f"{options.prompts} holds no prompts: write one a line")
    return prompts
