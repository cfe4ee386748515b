"""How much of its direction each perspective's gate writes for each question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.directions.accepting import Directions, as_directions
from saepd.directions.gate import read_amounts
from saepd.feedback.accepting import as_items
from saepd.feedback.schema import Item
from saepd.models.in_use import using
from saepd.models.prompts import item_prompt
from saepd.models.tokens import prompt_ids
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def gate_amounts(
    model: TransformerBridge,
    items: Item | Sequence[Item],
    directions: Directions,
    config: ReadoutConfig | None = None,
) -> dict[str, list[float]]:
    """How much of each direction is written for each question; 1 where it has no gate.

    Args:
        model: The language model.
        items: One item with options, or several.
        directions: One for each perspective, or a fit.
        config: How a question is put; as the directions' readout was fitted if None.

    Returns:
        Perspective -> amounts, one for each item.

    Raises:
        InputError: what is no item or direction, or a site that the model does not have.
    """
    asked, given = as_items(items), as_directions(directions)
    if config is None:
        fitted = [d.readout.config for d in given if d.readout is not None]
        config = fitted[0] if fitted else ReadoutConfig()
    rows = [
        prompt_ids(model.tokenizer, item_prompt(model, one.prompt, one.options, config))
        for one in asked
    ]
    gates = list({id(d.gate): d.gate for d in given if d.gate is not None}.values())
    with using(model, steered=False):
        amounts = read_amounts(model, rows, gates)
    return {
        d.perspective: [1.0] * len(rows) if d.gate is None else amounts[d.gate].tolist()
        for d in given
    }
