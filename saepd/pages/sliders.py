"""Sliders for strengths and merge in a notebook, with the bars of the options beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.feedback.schema import Item

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.pages.slider_widget import SliderWidget


def sliders(
    model: TransformerBridge, directions: Direction | Sequence[Direction], item: Item
) -> SliderWidget:
    """Move strengths and merge by hand, and see what every branch answers.

    The prompt runs once; a slider runs no more than the branches of a token or so.

    Args:
        model: The language model.
        directions: One for each perspective; their coefficients are strength 1.
        item: A question with options; what people answered it is drawn beside the branches.

    Returns:
        A widget; its ``strengths``, ``operator`` and ``alpha`` can be set in Python, too.

    Raises:
        InputError: anywidget is missing, there is no direction, or a question without options.
    """
    try:
        from saepd.pages.slider_widget import SliderWidget
    except ImportError as error:
        raise InputError("anywidget is not installed: pip install 'saepd[notebooks]'") from error
    given = [directions] if isinstance(directions, Direction) else list(directions)
    if not given:
        raise InputError("there is no direction to move: give one or more")
    if not isinstance(item, Item) or not item.options:
        raise InputError("sliders need a question with options: give a saepd.Item with some")
    return SliderWidget(model, given, item)
