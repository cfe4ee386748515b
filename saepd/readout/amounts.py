"""How much of its direction each perspective's gate writes for each question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.branches.engine.plan import check_prompts
from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.applying import check_fits
from saepd.directions.gate import read_amounts
from saepd.feedback.accepting import as_items
from saepd.feedback.schema import Item
from saepd.models.in_use import using
from saepd.models.prompts import item_prompt
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
        InputError: no items, what is no item or direction, a direction that does not fit the
            model, or two of one name.
    """
    asked, given = as_items(items), as_directions(directions)
    check_fits(model, given)
    names = [d.perspective for d in given]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(
            f"several directions are called {twice[0]!r}, and amounts are told by the name: give "
            "each its own"
        )
    if config is None:
        fitted = [d.readout.config for d in given if d.readout is not None]
        config = fitted[0] if fitted else ReadoutConfig()
    check_part("config", config, ReadoutConfig)
    prompts = [item_prompt(model, one.prompt, one.options, config) for one in asked]
    rows = check_prompts(model, prompts)
    gates = list({id(d.gate): d.gate for d in given if d.gate is not None}.values())
    with using(model, steered=False):
        amounts = read_amounts(model, rows, gates)
    return {
        d.perspective: [1.0] * len(rows) if d.gate is None else amounts[d.gate].tolist()
        for d in given
    }
