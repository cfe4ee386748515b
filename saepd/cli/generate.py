"""``saepd generate``: text from the merged perspectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from simple_parsing import field as option

from saepd.cli.options import ModelOptions, print_json
from saepd.generation import SamplingConfig
from saepd.merge import MergeConfig
from saepd.prompts import Style

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions import Direction

EXAMPLES = """\
  saepd generate "What should the government spend more on?" --steering steering
  saepd generate "The best thing about my town is" --style plain --steering steering
  saepd generate "Tell me about taxes." --steering steering --temperature 0.8 --seed 3"""


@dataclass
class Options:
    """What is written.

    Attributes:
        prompt: What the text follows.
        steering: Folder that `saepd fit` wrote.
        style: Whether the prompt is a user's turn in the chat template, or plain text.
        json: Print as JSON when done instead of token by token.
    """

    steering: Path
    prompt: str = option(positional=True)
    style: Style = "chat"
    json: bool = False
    where: ModelOptions = field(default_factory=ModelOptions)
    merge: MergeConfig = field(default_factory=MergeConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run(options: Options) -> None:
    """Generate and print as it comes."""
    from saepd.prompts import chat
    from saepd.steering import load_from_disk

    model, sae = options.where.load()
    directions = load_from_disk(options.steering, model, sae)
    prompt = chat(model.tokenizer, options.prompt) if options.style == "chat" else options.prompt
    write(model, prompt, directions, options.merge, options.sampling, as_json=options.json)


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
    from saepd.generation import generate

    pieces = generate(model, prompt, directions, merge, sampling)
    if as_json:
        print_json({"prompt": prompt, "text": "".join(pieces)})
        return
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
